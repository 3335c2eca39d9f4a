"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions over a sequence of tokens.

`genai train model=wavenet dataset=shakespeare`, then `genai sample run=latest prompt="ROMEO:" length=500`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.random import RowRandom
from genai_cli.nn.raster import gate
from genai_cli.rules import PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.decoding import draw_tokens

IGNORED = -100  # target that `cross_entropy` leaves out


class WaveNet(GenerativeModel):
    """`stacks` times `depth` gated layers of `width` channels, whose reach doubles from layer to layer of a stack.

    A prediction looks back on stacks * (2 ** depth - 1) + 1 tokens. A learned start stands before each window, so that
    its first token is predicted too, from nothing.
    """

    modalities = ("text",)
    monitor = "nll"
    tiny = {"width": 8, "depth": 2, "stacks": 2}

    def __init__(self, spec: Spec, *, width: PositiveInt = 64, depth: PositiveInt = 6, stacks: PositiveInt = 2):
        super().__init__(spec)
        self.embedding = nn.Embedding(spec.vocabulary_size, width)
        self.start = nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList(
            DilatedLayer(width, dilation=2**index) for _ in range(stacks) for index in range(depth)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, spec.vocabulary_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> logits (B, T + 1, V): at t those of token t, from the start and tokens 0 to t - 1."""
        start = self.start.expand(len(tokens), 1, -1)
        x = torch.cat([start, self.embedding(tokens)], dim=1).transpose(1, 2)  # (B, C, T + 1)
        skips = torch.zeros_like(x)
        for layer in self.layers:
            x, skip = layer(x, layer.before(x))
            skips = skips + skip
        return self.head(skips.transpose(1, 2))

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per token, a mean over the targets that the mask leaves in and the first token of each window."""
        tokens, is_counted = batch["tokens"], F.pad(batch["mask"], (1, 0), value=True)  # (B, T + 1) each
        logits = self(tokens[:, :-1]).float()  # (B, T + 1, V)
        targets = tokens.masked_fill(~is_counted, IGNORED)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), {}

    def evaluate(self, batch: Batch) -> Metrics:
        """Nats per token of each window, given its first one, and how many tokens that is the mean of (`weight`)."""
        tokens, mask = batch["tokens"], batch["mask"]
        logits = self(tokens[:, :-1]).float()[:, 1:]  # (B, T, V)
        targets = tokens[:, 1:].masked_fill(~mask, IGNORED)
        nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # (B, T)
        weight = mask.sum(1)
        return {"nll": nll.sum(1) / weight.clamp(min=1), "weight": weight.to(nll.dtype)}

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        temperature: PositiveFloat = 1.0,
        top_k: PositiveInt | None = None,
        top_p: Probability | None = None,
        length: PositiveInt | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """(B, P + length) int64: the prompt (P,), then `length` drawn tokens, by default a window of the data.

        One step a token: each layer remembers as far as it reaches.
        """
        length = self.spec.shape[0] if length is None else length
        known = torch.tensor([], dtype=torch.long) if prompt is None else prompt
        tokens = torch.zeros(random.size, len(known) + length, dtype=torch.long, device=random.device)
        tokens[:, : len(known)] = known.to(random.device)
        queues = [layer.new_queue(random.size, self.embedding.weight) for layer in self.layers]
        x = self.start.expand(random.size, -1)
        for t in range(tokens.shape[1]):
            logits = self._step(x, queues, t)
            if t >= len(known):
                tokens[:, t] = draw_tokens(logits, random, temperature=temperature, top_k=top_k, top_p=top_p)
            x = self.embedding.forward(tokens[:, t])  # `forward`: it is not to be compiled
        return tokens

    def _step(self, x: Tensor, queues: list[Tensor], t: int) -> Tensor:
        """The logits (B, V) after the t-th input (B, C)."""
        x = x.unsqueeze(2)
        skips = torch.zeros_like(x)
        for layer, queue in zip(self.layers, queues, strict=True):
            place = t % layer.dilation
            before = queue[:, :, place : place + 1].clone()  # of `dilation` steps ago
            queue[:, :, place : place + 1] = x
            x, skip = layer(x, before)
            skips = skips + skip
        return self.head.forward(skips.squeeze(2))


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

    def new_queue(self, batch_size: int, like: Tensor) -> Tensor:
        """(B, C, dilation) of zeros: the inputs of as many steps."""
        return like.new_zeros(batch_size, self.now.in_channels, self.dilation)
