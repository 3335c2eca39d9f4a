"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions over a sequence of tokens.

`genai train model=wavenet dataset=shakespeare`, then `genai sample run=latest prompt="ROMEO:" length=500`.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.random import RowRandom
from genai_cli.nn.raster import gate
from genai_cli.rules import NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.generation import generate

IGNORED = -100  # target that `cross_entropy` leaves out


class WaveNet(GenerativeModel):
    """`stacks` times `depth` gated layers of `width` channels, whose reach doubles from layer to layer of a stack.

    A prediction looks back on stacks * (2 ** depth - 1) + 1 tokens, and on zeros before the beginning.
    """

    modalities = ("text", "music", "molecules", "codes")
    monitor = "nll"
    figures = {"nll": "nats per token, exact -log p(x)"}
    tiny = {"width": 8, "depth": 2, "stacks": 1}

    def __init__(self, spec: Spec, *, width: PositiveInt = 64, depth: PositiveInt = 6, stacks: PositiveInt = 2):
        super().__init__(spec)
        self.tokenizer = tokenizer_of(spec)
        self.embedding = nn.Embedding(spec.vocabulary_size, width)
        self.layers = nn.ModuleList(
            DilatedLayer(width, dilation=2**index) for _ in range(stacks) for index in range(depth)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, spec.vocabulary_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> logits (B, T, V): at t those of the token after t, from tokens 0 to t."""
        x = self.embedding(tokens).transpose(1, 2)  # (B, C, T)
        skips = torch.zeros_like(x)
        for layer in self.layers:
            x, skip = layer(x, layer.before(x))
            skips = skips + skip
        return self.head(skips.transpose(1, 2))

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per token, a mean over the targets that the mask leaves in."""
        logits = self(batch["tokens"][:, :-1]).float()  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), masked_targets(batch).flatten()), {}

    def evaluate(self, batch: Batch) -> Metrics:
        """Nats per token of each window, and how many tokens that is the mean of (`weight`): the set's exact figure."""
        logits = self(batch["tokens"][:, :-1]).float()  # (B, T, V)
        nll = F.cross_entropy(logits.transpose(1, 2), masked_targets(batch), reduction="none")  # (B, T)
        weight = batch["mask"].sum(1)
        return {"nll": nll.sum(1) / weight.clamp(min=1), "weight": weight.to(nll.dtype)}

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
        length = self.spec.shape[0] if length is None else length
        yield from generate(QueuedPredictor(self), self.tokenizer, random, length=length, **options)


class QueuedPredictor:
    """Next-token logits of growing sequences: each layer keeps a queue of as many inputs as it reaches back."""

    def __init__(self, model: WaveNet):
        self.model = model
        self.queues: list[Tensor] = []  # (B, C, dilation) of each layer, filled in a circle
        self.num_read = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, V)."""
        if not self.queues:
            weight = self.model.embedding.weight
            self.queues = [
                weight.new_zeros(len(tokens), weight.shape[1], layer.dilation) for layer in self.model.layers
            ]
        for place in range(self.num_read, tokens.shape[1]):
            logits = self._read(tokens[:, place])
        return logits

    def _read(self, token: Tensor) -> Tensor:
        """The logits after one more token (B,) of each sequence."""
        # `forward`, not a call: a step of one token is not to be compiled.
        x = self.model.embedding.forward(token).unsqueeze(2)  # (B, C, 1)
        skips = torch.zeros_like(x)
        for layer, queue in zip(self.model.layers, self.queues, strict=True):
            oldest = queue.narrow(2, self.num_read % layer.dilation, 1)  # of `dilation` tokens ago
            before = oldest.clone()
            oldest.copy_(x)
            x, skip = layer.forward(x, before)
            skips = skips + skip
        self.num_read += 1
        return self.model.head.forward(skips.squeeze(2))

    def select(self, rows: Tensor) -> None:
        self.queues = [queue[rows] for queue in self.queues]


class DilatedLayer(nn.Module):
    """z = gate(W x_t + V x_(t - dilation)), then x + residual(z) and a skip to the head (Sections 2.3 and 2.4)."""

    def __init__(self, width: int, *, dilation: int):
        super().__init__()
        self.dilation = dilation
        self.now, self.earlier = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, 2 * width, 1, bias=False)
        self.out = nn.Conv1d(width, 2 * width, 1)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T), and what was there `dilation` steps before each, to the next layer's input and the skip."""
        residual, skip = self.out(gate(self.now(x) + self.earlier(before))).chunk(2, dim=1)
        return x + residual, skip

    def before(self, x: Tensor) -> Tensor:
        """x_(t - dilation), zeros before the beginning."""
        return F.pad(x, (self.dilation, 0))[..., : x.shape[2]]


def masked_targets(batch: Batch) -> Tensor:
    """(B, T) int64: the token after each input token, IGNORED where it does not count."""
    return batch["tokens"][:, 1:].masked_fill(~batch["mask"], IGNORED)
