"""T5: an encoder-decoder that answers a text with a text (Raffel et al. 2020, arXiv:1910.10683).

`genai train model=t5 dataset=pairs`, then `genai sample run=latest prompt="genesis" num_samples=1 top_k=1`. Of pairs
the encoder reads the prompt, the decoder writes the response. Of plain text a window is cut anywhere, and the decoder
goes on from what the encoder has read: the prefix language model of section 3.2.1. Masked spans are left out.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.encoder_decoder import EncoderDecoder
from genai_cli.nn.random import RowRandom
from genai_cli.rules import Fraction, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.generation import generate, lay_out


class T5(GenerativeModel):
    """p(response | prompt), a product over the response's tokens."""

    modalities = ("text", "music", "molecules")
    figures = {
        "nll": "nats per token of the response given the prompt (of a text: of a window's second half)",
        "exact": "share of responses that greedy decoding gives exactly",
    }
    monitor = "nll"
    rules = {
        "width % heads == 0": "width must be divisible by heads",
        "positions != 'rotary' or width // heads % 2 == 0": "rotary positions need an even width / heads",
    }
    tiny = {"width": 16, "depth": 1, "heads": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 3,
        heads: PositiveInt = 4,
        activation: Literal["gelu", "relu2", "swiglu"] = "gelu",
        positions: Literal["relative", "rotary"] = "relative",
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        (self.context,) = spec.shape
        self.tokenizer = tokenizer_of(spec)
        self.embedding = nn.Embedding(spec.vocabulary_size, width)
        self.transformer = EncoderDecoder(
            places=self.context + 1, width=width, depth=depth, heads=heads, activation=activation,
            positions=positions, dropout=dropout,
        )  # fmt: skip
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, cut: Tensor) -> Tensor:
        """(B, T + 1) int64 -> logits (B, T, V): at t those of the token after t, for t >= cut - 1, cut (B,) >= 1."""
        embedded = self.embedding(tokens)
        memory = self.transformer.encode(embedded, cut)
        return self.logits(self.transformer.decode(embedded[:, :-1], memory, cut))

    def logits(self, features: Tensor) -> Tensor:
        """(..., C) -> (..., V), by the embedding itself."""
        return F.linear(features, self.embedding.weight)

    def shard_units(self) -> list[nn.Module]:
        return [*self.transformer.encoder, *self.transformer.decoder, self]

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per token of each response, a mean over the batch. A text is cut anywhere, all places alike."""
        anywhere = 1 + batch.random.integers(self.context)
        nll, exact = self._of_responses(batch, self._cut(batch["tokens"], anywhere))
        return nll.mean(), {"exact": exact.mean()}

    def evaluate(self, batch: Batch) -> Metrics:
        half = torch.full((batch.size,), (self.context + 1) // 2, device=batch["tokens"].device)
        nll, exact = self._of_responses(batch, self._cut(batch["tokens"], half))
        return {"nll": nll, "exact": exact}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """The likeliest responses to prompts of the data, (B', T)."""
        tokens = batch["tokens"]
        cut = self._cut(tokens, torch.full((batch.size,), (self.context + 1) // 2, device=tokens.device))
        prompts = [row[:stop] for row, stop in zip(tokens, cut.tolist(), strict=True)]
        responses = self.sample(batch.random, prompts=prompts, top_k=1)
        return {"responses": F.pad(responses, (0, self.context - responses.shape[1]), value=-1)}

    def _cut(self, tokens: Tensor, otherwise: Tensor) -> Tensor:
        """(B,): where the response of each row begins; `otherwise` where its tokens have no separator."""
        if self.tokenizer.separator is None:
            return otherwise
        is_separator = tokens == self.tokenizer.separator
        return torch.where(is_separator.any(1), is_separator.int().argmax(1) + 1, otherwise).clamp(max=self.context)

    def _of_responses(self, batch: Batch, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Nats per token of the response and whether each of its tokens is the likeliest, (B,) each.

        Where all are, after the true tokens before them, greedy decoding gives the whole response.
        """
        tokens = batch["tokens"]
        logits, targets = self(tokens, cut).float(), tokens[:, 1:]
        counts = batch["mask"] & (torch.arange(self.context, device=cut.device) >= cut[:, None] - 1)  # (B, T)
        nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        is_right = (logits.argmax(2) == targets) | ~counts
        return (nll * counts).sum(1) / counts.sum(1).clamp(min=1), is_right.all(1).float()

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        temperature: PositiveFloat = 1.0,
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
        """(B, P + length) int64: the prompt (P,), then `length` tokens, by default as many as a window has room for."""
        places = self.stream(
            random, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, length=length, prompt=prompt, prompts=prompts, stop=stop, beam=beam,
            grammar=grammar,
        )  # fmt: skip
        return torch.stack(list(places), 1)

    @torch.inference_mode()
    def stream(
        self, random: RowRandom, *, length: int | None = None, prompt: Tensor | None = None,
        prompts: Sequence[Tensor] | None = None, **options: Any,
    ) -> Iterator[Tensor]:  # fmt: skip
        """See `samplers.generation.generate` for the options."""
        given = [prompt] if prompt is not None else list(prompts or [])
        longest = max(map(len, given), default=0)
        length = max(1, self.context - longest) if length is None else length
        if max(longest, 1) + length > self.context + 1:
            raise ValueError(
                f"a prompt of {longest} tokens and length={length} are more than the {self.context} of a window; "
                "give a shorter prompt, or train with a larger dataset.length"
            )
        tokens, cut = lay_out(given, random, start=self.tokenizer.start, length=0)
        predict = ResponsePredictor(self, tokens, cut)
        yield from generate(predict, self.tokenizer, random, length=length, prompt=prompt, prompts=prompts, **options)


class ResponsePredictor:
    """Next-token logits of growing responses to prompts, which are read once; so is each token that is drawn."""

    def __init__(self, model: T5, prompts: Tensor, cut: Tensor):
        """`prompts` (B, P), of which row i holds cut[i] tokens."""
        self.model, self.cut = model, cut
        self.memory = model.transformer.encode(model.embedding(prompts), cut)
        self.cache = model.transformer.new_cache()

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, V)."""
        fresh = self.model.embedding(tokens[:, self.cache.length :])
        features = self.model.transformer.decode(fresh, self.memory, self.cut, self.cache)
        return self.model.logits(features[:, -1])

    def select(self, rows: Tensor) -> None:
        self.memory, self.cut = self.memory[rows], self.cut[rows]
        self.cache.select(rows)
