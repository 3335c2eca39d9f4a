"""A network over piano rolls: each frame is predicted from those before it (Boulanger-Lewandowski et al. 2012).

`genai train model=roll_net dataset=jsb_rolls`. What was played is read by dilated causal convolutions (Bai et al. 2018,
arXiv:1803.01271), an LSTM or a GRU; attention after them finds what was played long ago (Wang et al. 2019,
arXiv:1907.05572), and what followed the same frames is recalled (`nn/recall.py`). The notes of a frame are independent
given the past, as in the published figures, or told one from the other (`output=nade`).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.nade import NADE
from genai_cli.nn.random import RowRandom
from genai_cli.nn.recall import Recall
from genai_cli.nn.temporal import TemporalConvNet
from genai_cli.nn.transformer import KeyValueCache, Transformer
from genai_cli.rules import Fraction, NonNegativeInt, PositiveFloat, PositiveInt

State = Tensor | tuple[Tensor, Tensor]


class RollNet(GenerativeModel):
    """p(roll) = prod_t p(frame_t | frames before t)."""

    modalities = ("rolls",)
    figures = {"nll": "nats per frame, exact -log p(x)"}
    monitor = "nll"
    rules = {
        "attention == 0 or width % heads == 0": "width must be divisible by heads",
        "attention == 0 or width // heads % 2 == 0": "attention needs an even width / heads",
        "attention > 0 or heads == 4": "heads belongs to attention=1 or more",
        "output == 'nade' or nade_width == 32": "nade_width belongs to output=nade",
        "reader == 'tcn' or kernel == 3": "kernel belongs to reader=tcn",
    }
    tiny = {"width": 8, "recall": 2, "attention": 1, "heads": 2, "dropout": 0.0, "input_dropout": 0.0}

    def __init__(
        self,
        spec: Spec,
        *,
        reader: Literal["tcn", "lstm", "gru"] = "tcn",
        width: PositiveInt = 150,
        depth: PositiveInt = 2,
        kernel: PositiveInt = 3,
        attention: NonNegativeInt = 0,
        heads: PositiveInt = 4,
        recall: NonNegativeInt = 0,
        output: Literal["bernoulli", "nade"] = "bernoulli",
        nade_width: PositiveInt = 32,
        dropout: Fraction = 0.5,
        input_dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        self.context, num_keys = spec.shape
        self.dropout, self.input_dropout = dropout, input_dropout
        self.reader: nn.Module
        if reader == "tcn":
            self.reader = TemporalConvNet(num_keys, width, depth=depth, kernel=kernel, dropout=dropout)
        else:
            self.reader = Recurrent(num_keys, width, cell=reader, depth=depth, dropout=dropout)
        self.transformer = None
        if attention > 0:
            self.transformer = Transformer(
                context=self.context, width=width, depth=attention, heads=heads, dropout=dropout
            )
        self.head = nn.Linear(width, num_keys)
        nn.init.constant_(self.head.bias, -3.0)  # of 88 notes about four sound
        self.recall = Recall(recall) if recall > 0 else None
        self.nade = NADE(num_keys, nade_width, condition_dim=width) if output == "nade" else None

    def features(self, past: Tensor, memory: "Memory | None" = None) -> Tensor:
        """(B, T, 88) -> (B, T, C): at t what predicts frame t, from frames before t, `past` being one frame late.

        With a memory, `past` is one frame that goes on from what that holds.
        """
        past = F.dropout(past, self.input_dropout, self.training)
        x = self.reader(past) if memory is None else memory.read(past)
        if self.transformer is not None:
            x = self.transformer(x, None if memory is None else memory.caches)
        return x

    def logits(self, features: Tensor, past: Tensor) -> Tensor:
        """Of each note, without what the other notes of its frame tell of it: features (B, T, C) to (B, T, 88)."""
        logits = self.head(features).float()
        return logits if self.recall is None else self.recall(logits, past)

    def nll(self, roll: Tensor) -> Tensor:
        """-log p of each frame given those before it, (B, T, 88) to (B, T), in nats."""
        past = F.pad(roll, (0, 0, 1, -1))
        features = self.features(past)
        logits = self.logits(features, past)
        if self.nade is not None:
            logits = logits + self.nade(features, roll).float()
        return F.binary_cross_entropy_with_logits(logits, roll, reduction="none").sum(2)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per frame."""
        longest = int(batch["mask"].any(0).sum())  # frames of the longest piece: what follows is padding
        mask = batch["mask"][:, :longest]
        return (self.nll(batch["roll"][:, :longest]) * mask).sum() / mask.sum(), {}

    def evaluate(self, batch: Batch, *, first_frame: bool = True) -> Metrics:
        """Nats per frame of each piece and its frames (`weight`): the exact figure of all frames of the split.

        `first_frame=false` takes the first frame of each piece as given, as the figures of Bai et al. 2018 do.
        """
        mask = batch["mask"].clone()
        mask[:, 0] &= first_frame
        weight = mask.sum(1)
        nll = (self.nll(batch["roll"]) * mask).sum(1)
        return {"nll": nll / weight.clamp(min=1), "weight": weight.to(nll.dtype)}

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        temperature: PositiveFloat = 1.0,
        length: PositiveInt | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """(B, P + length, 88) of 0 and 1: the prompt (P, 88), then `length` frames, by default as many as fit.

        Raises ValueError where there are more frames than attention can look back on.
        """
        frame = self.head.bias.new_zeros(random.size, self.spec.shape[1])
        given = frame[:0] if prompt is None else prompt.to(frame)  # (P, 88)
        if length is None:
            length = max(1, self.context - len(given))
        total = len(given) + length
        if self.transformer is not None and total > self.context:
            raise ValueError(
                f"a prompt of {len(given)} frames and length={length} are more than {self.context}, what attention "
                "spans: take fewer"
            )
        memory = Memory(self)
        frames = []
        for t in range(total):
            features = self.features(frame[:, None], memory)  # (B, 1, C)
            past = torch.stack([torch.zeros_like(frame), *frames], 1)  # (B, t + 1, 88)
            frame = given[t].expand_as(frame) if t < len(given) else self._draw(features, past, random, temperature)
            frames.append(frame)
        return torch.stack(frames, 1)

    def _draw(self, features: Tensor, past: Tensor, random: RowRandom, temperature: float) -> Tensor:
        """The notes of the frame after `past` (B, T, 88), of which the last `features` (B, 1, C) speak: (B, 88)."""
        threshold = random.uniform(self.spec.shape[1])
        logits = self.logits(features.expand(*past.shape[:2], -1), past)[:, -1]
        if self.nade is not None:
            return self.nade.draw(features[:, 0], logits, threshold, temperature)
        return (threshold < (logits / temperature).sigmoid()).to(logits.dtype)


class Recurrent(nn.Module):
    """An LSTM or GRU over embedded frames, with a way past it and dropout before and after."""

    def __init__(self, num_keys: int, width: int, *, cell: Literal["lstm", "gru"], depth: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Linear(num_keys, width)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.cell = kind(width, width, num_layers=depth, batch_first=True, dropout=dropout if depth > 1 else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 88) -> (B, T, C)."""
        return self.step(x, None)[0]

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The same, going on from a state."""
        x = F.dropout(self.embedding(x), self.dropout, self.training)
        remembered, state = self.cell(x, state)
        return x + F.dropout(remembered, self.dropout, self.training), state


class Memory:
    """What has been read of growing rolls: a recurrent state or the latest frames, and the caches of attention."""

    def __init__(self, model: RollNet):
        self.reader = model.reader
        self.state: State | None = None
        self.frames: Tensor | None = None  # (B, T', 88), as many as a convolution reaches back
        self.caches: list[KeyValueCache] | None = None if model.transformer is None else model.transformer.new_caches()

    def read(self, frame: Tensor) -> Tensor:
        """(B, 1, 88), which follows what was read, -> (B, 1, C)."""
        if isinstance(self.reader, Recurrent):
            features, self.state = self.reader.step(frame, self.state)
            return features
        assert isinstance(self.reader, TemporalConvNet), "there are two kinds of readers"
        frames = frame if self.frames is None else torch.cat([self.frames, frame], 1)
        self.frames = frames[:, -self.reader.reach - 1 :]
        return self.reader(self.frames)[:, -1:]
