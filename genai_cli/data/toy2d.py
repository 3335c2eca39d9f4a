"""Points in the plane from well-known shapes: small problems whose every sample can be seen.

Drawn anew from `seed` whenever they are loaded. The shapes are those of the literature on flows (Grathwohl et al. 2019,
FFJORD; Johnson et al. 2016 for the pinwheel), scaled to lie within about two units of the origin.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import Dataset, Spec, SplitName, TensorSplit
from genai_cli.nn.random import mix
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveInt

_STREAMS = {"train": 0, "validation": 1, "test": 2}


class Toy2d(Dataset):
    """Points in the plane: eight Gaussians, moons, rings, spirals, a checkerboard or a pinwheel."""

    modality = "points"
    rules = {"shape != 'eight_gaussians' or noise != 0": "noise=0 leaves eight points, the same ones in every split"}

    def __init__(
        self,
        *,
        shape: Literal["eight_gaussians", "moons", "rings", "spirals", "checkerboard", "pinwheel"] = "eight_gaussians",
        size: PositiveInt = 50_000,  # points to train on
        held_out: PositiveInt = 10_000,  # points in each of the validation and test splits
        noise: NonNegativeFloat | None = None,  # standard deviation around the shape; null: the shape's own
        seed: NonNegativeInt = 0,
    ):
        self.shape = shape
        self.sizes = {"train": size, "validation": held_out, "test": held_out}
        self.noise = NOISE[shape] if noise is None else noise
        self.seed = seed
        self.spec = Spec("points", (2,))

    def load(self, split: SplitName) -> TensorSplit:
        generator = torch.Generator().manual_seed(mix(self.seed, _STREAMS[split]))
        points = SHAPES[self.shape](self.sizes[split], generator)
        points += self.noise * torch.randn(points.shape, generator=generator)
        return TensorSplit({"points": points}, dict)


def eight_gaussians(size: int, generator: torch.Generator) -> Tensor:
    """(N, 2): eight centres on a circle of radius 2."""
    angle = torch.randint(8, (size,), generator=generator) * (math.pi / 4)
    return _polar(2.0, angle)


def moons(size: int, generator: torch.Generator) -> Tensor:
    """(N, 2): two half circles, one inside the reach of the other."""
    angle = math.pi * torch.rand(size, generator=generator)
    sign = 1.0 - 2.0 * torch.randint(2, (size,), generator=generator)  # +1 the upper moon, -1 the lower
    points = _polar(1.0, angle) * sign.unsqueeze(1)
    points += torch.stack([-0.5 * sign, -0.25 * sign], dim=1)
    return 1.4 * points


def rings(size: int, generator: torch.Generator) -> Tensor:
    """(N, 2): four circles around the origin, each with points in proportion to its length."""
    radii = torch.tensor([0.5, 1.0, 1.5, 2.0])
    ring = torch.multinomial(radii, size, replacement=True, generator=generator)
    return _polar(radii[ring], 2 * math.pi * torch.rand(size, generator=generator))


def spirals(size: int, generator: torch.Generator) -> Tensor:
    """(N, 2): two arms of one and a half turns; the square root spreads points evenly along an arm."""
    turn = 3 * math.pi * torch.rand(size, generator=generator).sqrt()  # angle from the centre
    arm = math.pi * torch.randint(2, (size,), generator=generator)
    return _polar(2.0 * turn / (3 * math.pi), turn + arm)


def checkerboard(size: int, generator: torch.Generator) -> Tensor:
    """(N, 2): the eight dark squares of a 4 x 4 board on [-2, 2]^2."""
    x = 4 * torch.rand(size, generator=generator)  # column is floor(x)
    row = 2 * torch.randint(2, (size,), generator=generator) + x.floor() % 2
    return torch.stack([x, row + torch.rand(size, generator=generator)], dim=1) - 2


def pinwheel(size: int, generator: torch.Generator) -> Tensor:
    """(N, 2): five blurred blades, bent more the farther out."""
    radius = 1 + 0.3 * torch.randn(size, generator=generator)
    width = 0.1 * torch.randn(size, generator=generator)
    blade = 2 * math.pi / 5 * torch.randint(5, (size,), generator=generator)
    angle = blade + 0.25 * radius.exp()
    across = torch.stack([-angle.sin(), angle.cos()], dim=1)  # unit vector across the blade
    return 1.2 * (_polar(radius, angle) + width.unsqueeze(1) * across)


def _polar(radius: float | Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


SHAPES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "eight_gaussians": eight_gaussians,
    "moons": moons,
    "rings": rings,
    "spirals": spirals,
    "checkerboard": checkerboard,
    "pinwheel": pinwheel,
}
NOISE = {
    "eight_gaussians": 0.2,
    "moons": 0.1,
    "rings": 0.05,
    "spirals": 0.05,
    "checkerboard": 0.0,
    "pinwheel": 0.0,
}
