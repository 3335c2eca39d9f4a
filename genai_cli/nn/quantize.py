"""Quantisers: vectors to the nearest of finitely many, with gradients that pass as if nothing had happened.

- `VectorQuantizer`: a codebook that follows the vectors by moving averages (van den Oord et al. 2017, arXiv:1711.00937,
  Appendix A.1), with codes that are no longer used restarted at vectors of the batch (Dhariwal et al. 2020,
  arXiv:2005.00341). In several levels, each quantises what the ones before left (Lee et al. 2022, arXiv:2203.01941).
- `FiniteScalarQuantizer`: every coordinate rounded to a few levels (Mentzer et al. 2023, arXiv:2309.15505): nothing is
  learned, and no code can die.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.ranks import gather_over_ranks, sum_over_ranks

STRIDE = 7919  # a prime: multiples of it visit all rows of a batch, and no place of an image more than another


class Quantized(NamedTuple):
    """Vectors (N, D) and what stands for them."""

    vectors: Tensor  # (N, D): the codes' vectors in value, with the gradient of the vectors that were given
    indices: Tensor  # (N, Q) int64: a code for each of Q levels
    commitment: Tensor  # (N,): squared distance of the given vectors from their codes; its gradient moves them there


def straight_through(value: Tensor, gradient_of: Tensor) -> Tensor:
    """`value` forwards, the identity on `gradient_of` backwards (Bengio et al. 2013)."""
    return gradient_of + (value - gradient_of).detach()


class VectorQuantizer(nn.Module):
    """`num_levels` codebooks of `num_codes` vectors of `dim` numbers, each for the rest that the ones before left."""

    def __init__(self, dim: int, num_codes: int, num_levels: int = 1):
        super().__init__()
        self.dim, self.num_codes = dim, num_codes
        self.books = nn.ModuleList(Codebook(dim, num_codes) for _ in range(num_levels))

    def forward(self, z: Tensor, *, learn: bool = False) -> Quantized:
        """(N, D) to the nearest codes; with `learn`, the codebooks take a step towards the vectors of all ranks."""
        rest, indices, commitment = z.float(), [], 0.0
        for book in self.books:
            if learn:
                book.learn(rest.detach())
            index = book.nearest(rest.detach())
            vector = book.vectors[index]
            commitment = commitment + (rest - vector).square().sum(1)
            rest = rest - vector
            indices.append(index)
        value = self.vectors_of(torch.stack(indices, dim=1))
        return Quantized(straight_through(value, z.float()), torch.stack(indices, dim=1), commitment)

    def vectors_of(self, indices: Tensor) -> Tensor:
        """(N, Q) to (N, D)."""
        return torch.stack([book.vectors[index] for book, index in zip(self.books, indices.T, strict=True)]).sum(0)


class Codebook(nn.Module):
    """K vectors, each the moving average of those that were nearest to it: k-means, a little at every step.

    `decay` weighs the past. A code whose average count falls below `least` is set to a vector of the batch; so are all
    at the first step. With more patience the encoder runs away from its codes in the first hundred steps, until one is
    the nearest to everything.
    """

    vectors: Tensor  # (K, D)
    counts: Tensor  # (K,): average number of vectors for which a code was the nearest
    sums: Tensor  # (K, D): average sum of these

    def __init__(self, dim: int, num_codes: int, *, decay: float = 0.99, least: float = 1.0):
        super().__init__()
        self.decay, self.least = decay, least
        self.register_buffer("vectors", torch.randn(num_codes, dim))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, dim))

    def nearest(self, z: Tensor) -> Tensor:
        """(N, D) to (N,) int64; the first of equals."""
        distances = self.vectors.square().sum(1) - 2 * z @ self.vectors.T  # (N, K), without the term of z alone
        return distances.argmin(1)

    @torch.no_grad()
    def learn(self, z: Tensor) -> None:
        """One step of Appendix A.1: N <- d N + (1 - d) n, m <- d m + (1 - d) sum z, e = m / N."""
        self._restart(gather_over_ranks(z))
        chosen = F.one_hot(self.nearest(z), len(self.vectors)).to(z)  # (N, K)
        self.counts.lerp_(sum_over_ranks(chosen.sum(0)), 1 - self.decay)
        self.sums.lerp_(sum_over_ranks(chosen.T @ z), 1 - self.decay)
        self.vectors.copy_(self.sums / self.counts[:, None])

    def _restart(self, z: Tensor) -> None:
        """Codes that are hardly used begin again at vectors spread over the batch, as if nearest to one each."""
        dead = (self.counts < self.least).nonzero().flatten()
        places = torch.arange(len(dead), device=z.device) * STRIDE % len(z)
        self.vectors[dead] = z[places]
        self.sums[dead] = z[places]
        self.counts[dead] = 1.0


class FiniteScalarQuantizer(nn.Module):
    """Coordinate i bounded by a tanh and rounded to `levels[i]` values from -1 to 1; the code is their number in mixed
    radix, the first coordinate counting least.
    """

    basis: Tensor  # (D,)
    levels: Tensor  # (D,)

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.dim, self.num_codes = len(levels), math.prod(levels)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def forward(self, z: Tensor, *, learn: bool = False) -> Quantized:
        """(N, D). There is nothing to learn and nothing to commit to."""
        bounded = self._bound(z.float())  # within (0, levels - 1) and half a step around it
        digits = bounded.round()
        vectors = straight_through(digits, bounded) * (2 / (self.levels - 1)) - 1
        index = (digits.long() * self.basis).sum(1, keepdim=True)
        return Quantized(vectors, index, z.new_zeros(len(z)))

    def vectors_of(self, indices: Tensor) -> Tensor:
        """(N, 1) to (N, D)."""
        digits = indices // self.basis % self.levels
        return digits * (2 / (self.levels - 1)) - 1

    def _bound(self, z: Tensor) -> Tensor:
        """Each coordinate to (-0.49.., levels - 1 + 0.49..), so that each level takes an equal share of the tanh."""
        half_width = (self.levels - 1e-3) / 2
        return torch.tanh(z) * half_width + (self.levels - 1) / 2


def perplexities(indices: Tensor, num_codes: int) -> dict[str, Tensor]:
    """`perplexity` of the codes (N, Q) to log: of each level by itself, where there are several.

    Of all levels together it would hide a dead one: 256 codes of one level and a single code of the other are 31.6.
    """
    if indices.shape[1] == 1:
        return {"perplexity": perplexity(indices, num_codes)}
    return {f"perplexity_{level}": perplexity(column, num_codes) for level, column in enumerate(indices.T)}


def perplexity(indices: Tensor, num_codes: int) -> Tensor:
    """How many codes are in use, as exp of the entropy of their shares among all ranks' `indices`: 1 to `num_codes`."""
    counts = sum_over_ranks(torch.bincount(indices.flatten(), minlength=num_codes).float())
    share = counts / counts.sum()
    return torch.exp(-torch.xlogy(share, share).sum())
