"""Precision, recall, density and coverage: two sets of features, each stood for by balls around its members.

The ball of an example reaches to its k-th nearest neighbour within its own set. Precision and recall are of
Kynkaanniemi et al. 2019 (arXiv:1904.06991, Eq. 2), density and coverage of Naeem et al. 2020 (arXiv:2002.09797, Eq. 4
and 5). They say what one distance cannot: whether samples are bad (precision, density) or are missing (recall,
coverage). All depend on the numbers of examples: take as many samples as data, and compare at equal numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 5
_ROWS = 1024  # of a distance matrix held at a time


@dataclass(frozen=True)
class Manifold:
    """The four verdicts, one for each example; a figure is the mean of its column."""

    precision: Tensor  # (M,): 1 if the sample lies in a ball of the data
    density: Tensor  # (M,): in how many balls of the data it lies, over k
    recall: Tensor  # (N,): 1 if the example of the data lies in a ball of the samples
    coverage: Tensor  # (N,): 1 if its ball holds a sample


def compare_manifolds(real: Tensor, fake: Tensor, *, neighbours: int = NEIGHBOURS) -> Manifold:
    """Of `real` (N, D) and `fake` (M, D). Raises ValueError where a set has no `neighbours` beside each example."""
    if min(len(real), len(fake)) <= neighbours:
        raise ValueError(f"{len(real)} and {len(fake)} examples: more than {neighbours} of each are needed")
    real, fake = real.double(), fake.double()
    real_radius, fake_radius = radii(real, neighbours), radii(fake, neighbours)
    num_balls, nearest_fake, is_recalled = [], torch.full_like(real_radius, torch.inf), torch.zeros(len(real)).bool()
    for start in range(0, len(fake), _ROWS):
        block = slice(start, start + _ROWS)
        distance = torch.cdist(fake[block], real)  # (m, N)
        num_balls.append((distance < real_radius).sum(1))
        nearest_fake = torch.minimum(nearest_fake, distance.min(0).values)
        is_recalled |= (distance < fake_radius[block, None]).any(0)
    balls = torch.cat(num_balls).double()
    return Manifold(
        precision=(balls > 0).double(),
        density=balls / neighbours,
        recall=is_recalled.double(),
        coverage=(nearest_fake < real_radius).double(),
    )


def radii(x: Tensor, neighbours: int) -> Tensor:
    """(N,): the distance of each example to its k-th nearest other one, of `x` (N, D)."""
    found = [
        torch.cdist(block, x).topk(neighbours + 1, largest=False).values[:, -1]  # the nearest of all is itself
        for block in x.split(_ROWS)
    ]
    return torch.cat(found)
