"""Sines of random frequency and phase, the toy data of TimeGAN (Yoon, Jarrett & van der Schaar, NeurIPS 2019).

`genai train model=wavenet dataset=sines`. Each of 5 features of 24 steps is sin(eta t + theta), scaled to [0, 1], and
independent of the others. Drawn anew from `seed` whenever they are loaded.
"""

import math
from typing import Literal

import torch

from genai_cli.data.base import Dataset, Spec, SplitName, TensorSplit
from genai_cli.nn.random import mix
from genai_cli.rules import NonNegativeInt, PositiveInt

_STREAMS = {"train": 0, "validation": 1, "test": 2}


class Sines(Dataset):
    """Sines of random frequency and phase: TimeGAN's toy data, 24 steps of 5 features.

    `protocol=code` draws what the authors' program does, on which their figures are: eta and theta from U[0, 0.1].
    `protocol=paper` draws what their Section 6.1 says: eta from 2 pi U[0, 1], theta from U[-pi, pi].
    """

    modality = "series"

    def __init__(
        self,
        *,
        length: PositiveInt = 24,  # steps
        features: PositiveInt = 5,
        protocol: Literal["code", "paper"] = "code",
        size: PositiveInt = 10_000,  # sequences to train on
        held_out: PositiveInt = 1_000,  # sequences in each of the validation and test splits
        seed: NonNegativeInt = 0,
    ):
        self.protocol = protocol
        self.sizes = {"train": size, "validation": held_out, "test": held_out}
        self.seed = seed
        names = tuple(f"sine_{number}" for number in range(1, features + 1))
        self.spec = Spec("series", (length, features), value_range=(0.0, 1.0), columns=names)

    def load(self, split: SplitName) -> TensorSplit:
        generator = torch.Generator().manual_seed(mix(self.seed, _STREAMS[split]))
        length, features = self.spec.shape
        draws = torch.rand(2, self.sizes[split], 1, features, generator=generator, dtype=torch.float64)
        eta, theta = draws  # (N, 1, C) each
        if self.protocol == "code":
            eta, theta = 0.1 * eta, 0.1 * theta
        else:
            eta, theta = 2 * math.pi * eta, math.pi * (2 * theta - 1)
        time = torch.arange(length).unsqueeze(1)  # (T, 1)
        return TensorSplit({"series": (((eta * time + theta).sin() + 1) / 2).float()}, dict)
