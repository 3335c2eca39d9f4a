"""A recurrent network over piano rolls, which may also look back (Boulanger-Lewandowski et al. 2012; R-Transformer).

`genai train model=roll_rnn dataset=jsb_rolls`. Each frame is predicted from those before it: an LSTM or GRU remembers,
and attention after it finds what was played before (Wang et al. 2019, arXiv:1907.05572). The notes of a frame are
independent given the past, as in the published figures, or told one from the other (`output=nade`).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.nade import NADE
from genai_cli.nn.random import RowRandom
from genai_cli.nn.transformer import CausalTransformer, KeyValueCache
from genai_cli.rules import Fraction, NonNegativeInt, PositiveFloat, PositiveInt

State = Tensor | tuple[Tensor, Tensor]


class RollRNN(GenerativeModel):
    """p(roll) = prod_t p(frame_t | frames before t)."""

    modalities = ("rolls",)
    figures = {"nll": "nats per frame, exact -log p(x)"}
    monitor = "nll"
    rules = {
        "width % heads == 0": "width must be divisible by heads",
        "attention == 0 or width // heads % 2 == 0": "attention needs an even width / heads",
    }
    tiny = {"width": 8, "attention": 1, "heads": 2, "nade_width": 4, "dropout": 0.0, "input_dropout": 0.0}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 112,
        cell: Literal["lstm", "gru"] = "lstm",
        attention: NonNegativeInt = 1,
        heads: PositiveInt = 4,
        output: Literal["bernoulli", "nade"] = "bernoulli",
        nade_width: PositiveInt = 32,
        dropout: Fraction = 0.4,
        input_dropout: Fraction = 0.1,
    ):
        super().__init__(spec)
        self.context, num_keys = spec.shape
        self.dropout, self.input_dropout = dropout, input_dropout
        self.embedding = nn.Linear(num_keys, width)
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](width, width, batch_first=True)
        self.transformer = None
        if attention > 0:
            self.transformer = CausalTransformer(
                context=self.context, width=width, depth=attention, heads=heads, dropout=dropout
            )
        self.head = nn.Linear(width, num_keys)
        nn.init.constant_(self.head.bias, -3.0)  # of 88 notes about four sound
        self.nade = NADE(num_keys, nade_width, condition_dim=width) if output == "nade" else None

    def features(self, past: Tensor, memory: "Memory | None" = None) -> Tensor:
        """(B, T, 88) -> (B, T, C): at t what predicts frame t, from frames before t, `past` being one frame late.

        With a memory, `past` goes on from what that holds.
        """
        x = self.embedding(F.dropout(past, self.input_dropout, self.training))  # (B, T, C)
        x = F.dropout(x, self.dropout, self.training)
        remembered, state = self.rnn(x, None if memory is None else memory.state)
        x = x + F.dropout(remembered, self.dropout, self.training)
        if memory is not None:
            memory.state = state
        if self.transformer is not None:
            x = self.transformer(x, None if memory is None else memory.caches)
        return F.dropout(x, self.dropout, self.training)

    def nll(self, roll: Tensor) -> Tensor:
        """-log p of each frame given those before it, (B, T, 88) to (B, T), in nats."""
        features = self.features(F.pad(roll, (0, 0, 1, -1)))
        logits = self.head(features).float()
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
        given = torch.zeros(0, self.spec.shape[1]) if prompt is None else prompt
        if length is None:
            length = max(1, self.context - len(given))
        total = len(given) + length
        if self.transformer is not None and total > self.context:
            raise ValueError(
                f"a prompt of {len(given)} frames and length={length} are more than {self.context}, what attention "
                "spans: take fewer"
            )
        memory = Memory(self)
        frame = self.head.bias.new_zeros(random.size, self.spec.shape[1])
        frames = []
        for t in range(total):
            features = self.features(frame[:, None], memory)[:, 0]  # (B, C)
            is_given = t < len(given)
            frame = given[t].to(frame).expand_as(frame) if is_given else self._draw(features, random, temperature)
            frames.append(frame)
        return torch.stack(frames, 1)

    def _draw(self, features: Tensor, random: RowRandom, temperature: float) -> Tensor:
        """The notes of one frame, (B, 88)."""
        logits, threshold = self.head(features), random.uniform(self.spec.shape[1])
        if self.nade is not None:
            return self.nade.draw(features, logits, threshold, temperature)
        return (threshold < (logits / temperature).sigmoid()).to(logits.dtype)


class Memory:
    """What has been read of growing rolls: the state of the recurrent cell, and the caches of attention."""

    def __init__(self, model: RollRNN):
        self.state: State | None = None
        self.caches: list[KeyValueCache] | None = None if model.transformer is None else model.transformer.new_caches()
