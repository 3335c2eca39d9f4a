"""A recurrent network of the next token (Mikolov et al. 2010; Graves 2013, arXiv:1308.0850; Karpathy 2015, char-rnn).

`genai train model=char_rnn dataset=shakespeare`. What it has read is kept in a state of fixed size, so that a sample
may be of any length at the same cost a token; in training the state begins at zero with each window.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.next_token import next_token_figures, next_token_loss, without_padding
from genai_cli.nn.random import RowRandom
from genai_cli.rules import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.generation import generate

State = Tensor | tuple[Tensor, Tensor]


class CharRNN(GenerativeModel):
    """`depth` layers of LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014) over tokens."""

    modalities = ("text", "music", "molecules", "codes")
    figures = {"nll": "nats per token, exact -log p(x)"}
    monitor = "nll"
    rules = {"dropout == 0 or depth > 1": "dropout is between layers: it needs depth=2 or more"}
    tiny = {"width": 8, "depth": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 256,
        depth: PositiveInt = 2,
        cell: Literal["lstm", "gru"] = "lstm",
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        (self.context,) = spec.shape
        self.tokenizer = tokenizer_of(spec)
        self.embedding = nn.Embedding(spec.vocabulary_size, width)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.rnn = kind(width, width, num_layers=depth, batch_first=True, dropout=dropout)
        self.head = nn.Linear(width, spec.vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        if cell == "lstm":
            self._open_forget_gates(width)

    @torch.no_grad()
    def _open_forget_gates(self, width: int) -> None:
        """A bias of 1, so that an untrained cell remembers (Gers et al. 2000; Jozefowicz et al. 2015)."""
        for name, bias in self.rnn.named_parameters():
            if name.startswith("bias_ih"):
                bias[width : 2 * width] = 1

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> logits (B, T, V): at t those of the token after t, from tokens 0 to t."""
        features, _ = self.rnn(self.embedding(tokens))
        return self.head(features)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        batch = without_padding(batch)
        return next_token_loss(self(batch["tokens"][:, :-1]), batch), {}

    def evaluate(self, batch: Batch) -> Metrics:
        batch = without_padding(batch)
        return next_token_figures(self(batch["tokens"][:, :-1]), batch)

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        temperature: NonNegativeFloat = 1.0,
        top_k: PositiveInt | None = None,
        top_p: Probability | None = None,
        min_p: Probability | None = None,
        repetition_penalty: PositiveFloat = 1.0,
        length: PositiveInt | None = None,
        prompt: Tensor | None = None,
        prompts: list[Tensor] | None = None,
        stop: str | None = None,
        beam: PositiveInt | None = None,
        grammar: bool | None = None,
    ) -> Tensor:
        """(B, P + length) int64: the prompt (P,), then `length` tokens, by default a window of the data."""
        places = self.stream(
            random, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, length=length, prompt=prompt, prompts=prompts, stop=stop, beam=beam,
            grammar=grammar,
        )  # fmt: skip
        return torch.stack(list(places), 1)

    @torch.inference_mode()
    def stream(self, random: RowRandom, *, length: int | None = None, **options: Any) -> Iterator[Tensor]:
        """See `samplers.generation.generate` for the options."""
        length = self.context if length is None else length
        yield from generate(StatefulPredictor(self), self.tokenizer, random, length=length, **options)


class StatefulPredictor:
    """Next-token logits of growing sequences, each token read once."""

    def __init__(self, model: CharRNN):
        self.model = model
        self.state: State | None = None
        self.num_read = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, V)."""
        fresh = tokens[:, self.num_read :]
        # The functional embedding: where training is compiled, the module would be compiled for every length.
        features, self.state = self.model.rnn.forward(F.embedding(fresh, self.model.embedding.weight), self.state)
        self.num_read = tokens.shape[1]
        return self.model.head(features[:, -1])

    def select(self, rows: Tensor) -> None:
        if isinstance(self.state, tuple):
            self.state = (self.state[0][:, rows], self.state[1][:, rows])
        elif self.state is not None:
            self.state = self.state[:, rows]
