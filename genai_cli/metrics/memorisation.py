"""Are samples copies of the training data? Their distance to it, beside that to data the model never saw.

As in the data-copying test of Meehan et al. 2020 (arXiv:2004.05675): a generator that has learned the distribution
is as close to one draw of it as to another. So of two reference sets of the same size, one trained on and one held
out, each should hold the nearer neighbour of half of the samples; copies have theirs in the training set.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 512


@dataclass(frozen=True)
class Closeness:
    """For each sample: the distance to its nearest training example and to its nearest held-out example, (M,) each."""

    to_train: Tensor
    to_held_out: Tensor

    def of(self, rows: Tensor) -> "Closeness":
        """That of some samples, `rows` (N,), which may repeat."""
        return Closeness(self.to_train[rows], self.to_held_out[rows])

    @property
    def is_closer_to_train(self) -> Tensor:
        """(M,): 1, 0, or 1/2 at equal distance. The mean is 1/2 without memorisation, 1 for copies."""
        closer, equal = self.to_train < self.to_held_out, self.to_train == self.to_held_out
        return closer.double() + 0.5 * equal.double()

    @property
    def ratio(self) -> float:
        """The median distance to training data over that to held-out data: 1 without memorisation, 0 for copies."""
        held_out = self.to_held_out.median().item()
        return self.to_train.median().item() / held_out if held_out > 0 else 1.0


def closeness(samples: Tensor, train: Tensor, held_out: Tensor) -> Closeness:
    """Of samples (M, ...) to two sets of one size (N, ...), by Euclidean distance of the data themselves.

    Raises ValueError where the sizes differ: the larger set would be nearer for that alone.
    """
    if len(train) != len(held_out):
        raise ValueError(f"{len(train)} training and {len(held_out)} held-out examples: the sizes must be equal")
    return Closeness(nearest_distance(samples, train), nearest_distance(samples, held_out))


def nearest_distance(x: Tensor, reference: Tensor) -> Tensor:
    """(M,): from each of `x` (M, ...) to its nearest of `reference` (N, ...)."""
    reference = reference.flatten(1).float()
    nearest = [torch.cdist(block.flatten(1).float(), reference).min(1).values for block in x.split(_ROWS)]
    return torch.cat(nearest)
