"""Random numbers by row: the batch decides nothing, the row decides all.

Training and sampling both draw through a `RowRandom`, whose row i does not depend on how the rows were grouped:

- `BatchRandom`, in training: row i of the global batch gets the same numbers on one rank or on four, in one
  micro-batch or in eight, so accumulation and data parallelism leave the loss as it was.
- `SampleRandom`, in sampling: sample i is a function of (seed, i) alone, so `num_samples=8` gives the first eight
  of `num_samples=64`, whatever the batch size.

torch seeds its CPU generator with 32 bits; `SampleRandom` maps i to its seed by a bijection, so that no two of
2^32 samples share a stream.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF


def mix(*numbers: int) -> int:
    """A 64-bit hash of a sequence of integers (splitmix64, applied number by number)."""
    state = 0x243F6A8885A308D3
    for number in numbers:
        state = (state ^ (number & _MASK64)) * 0x9E3779B97F4A7C15 & _MASK64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK64
        state ^= state >> 31
    return state


def _permute32(number: int) -> int:
    """A bijection of 32-bit integers without visible order (murmur3's finaliser)."""
    number = (number ^ (number >> 16)) * 0x85EBCA6B & _MASK32
    number = (number ^ (number >> 13)) * 0xC2B2AE35 & _MASK32
    return number ^ (number >> 16)


def permuted(positions: Tensor, length: int, key: int) -> Tensor:
    """Where a permutation of {0, ..., length - 1}, chosen by `key`, takes `positions` (B,), without being written out.

    Four rounds of a Feistel cipher (Luby & Rackoff 1988) on the least even number of bits that holds them all; what
    leaves the range is enciphered again until it is back (Black & Rogaway 2002, cycle walking).
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = [mix(key, i) & 0x7FFFFFFF for i in range(4)]
    is_out = torch.ones_like(positions, dtype=torch.bool)
    while is_out.any():
        left, right = positions >> half, positions & mask
        for of_round in keys:
            scrambled = (right ^ of_round) * 0x2545F4914F6CDD1D
            scrambled = (scrambled ^ (scrambled >> 29)) * 0x5851F42D4C957F2D  # wraps at 64 bits
            left, right = right, left ^ (scrambled >> 32) & mask
        positions = torch.where(is_out, left << half | right, positions)
        is_out = positions >= length
    return positions


def inverse_cdf(logits: Tensor, threshold: Tensor) -> Tensor:
    """(B,) int64: the token of softmax of `logits` (B, V) at which its cumulative distribution passes `threshold`
    (B, 1) in [0, 1)."""
    last = logits.shape[-1] - 1
    cumulative = torch.softmax(logits, -1, dtype=torch.float64).cumsum(-1)  # (B, V)
    threshold = cumulative.narrow(1, last, 1) * threshold
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp_(max=last)


def truncate(centred: Tensor, limit: float) -> Tensor:
    """Uniform numbers in [-1, 1) to normal ones that lie within `limit` of 0, by the inverse distribution."""
    inside = math.erf(limit / math.sqrt(2))  # the probability of that
    return (math.sqrt(2) * torch.erfinv(centred.double() * inside)).clamp(-limit, limit).float()


class RowRandom(ABC):
    """Independent random numbers for the `size` rows of a batch, on `device`."""

    index: range | Sequence[int]  # which rows these are: of the global batch, or of all samples
    device: torch.device

    @property
    def size(self) -> int:
        return len(self.index)

    @abstractmethod
    def normal(self, *shape: int) -> Tensor:
        """(size, *shape), standard normal."""

    @abstractmethod
    def uniform(self, *shape: int) -> Tensor:
        """(size, *shape), uniform in [0, 1)."""

    def truncated_normal(self, limit: float, *shape: int) -> Tensor:
        """(size, *shape), standard normal given that it lies within `limit` of 0."""
        return truncate(2 * self.uniform(*shape) - 1, limit)

    def integers(self, high: int, *shape: int) -> Tensor:
        """(size, *shape) int64, uniform in {0, ..., high - 1}."""
        return (self.uniform(*shape) * high).long().clamp_(max=high - 1)

    def categorical(self, logits: Tensor) -> Tensor:
        """(size,) int64 drawn from softmax of `logits` (size, V)."""
        return inverse_cdf(logits, self.uniform(1))


class Twice(RowRandom):
    """The numbers of `random` for its rows, and the same again for as many that follow them."""

    def __init__(self, random: RowRandom):
        self.random = random
        self.index, self.device = [*random.index, *random.index], random.device

    def normal(self, *shape: int) -> Tensor:
        return self.random.normal(*shape).repeat(2, *[1] * len(shape))

    def uniform(self, *shape: int) -> Tensor:
        return self.random.uniform(*shape).repeat(2, *[1] * len(shape))


class BatchRandom(RowRandom):
    """Rows `start` to `stop` of a global batch of `total` rows, in the step that `key` names.

    The n-th call draws for all `total` rows from the stream (key, n) and keeps its own: every rank and micro-batch
    that makes the same calls sees slices of the same numbers.
    """

    def __init__(
        self, *key: int, start: int = 0, stop: int, total: int | None = None, device: torch.device | str = "cpu"
    ):
        self.key = key
        self.start, self.stop, self.total = start, stop, stop if total is None else total
        self.index = range(start, stop)
        self.device = torch.device(device)
        self.calls = 0
        self._generator: torch.Generator | None = None

    @property
    def place(self) -> tuple[int, ...]:
        """Two with the same one draw the same numbers."""
        return *self.key, self.start, self.stop, self.total

    def normal(self, *shape: int) -> Tensor:
        generator = self._next_generator()
        return torch.randn(self.total, *shape, generator=generator, device=self.device)[self.start : self.stop]

    def uniform(self, *shape: int) -> Tensor:
        generator = self._next_generator()
        return torch.rand(self.total, *shape, generator=generator, device=self.device)[self.start : self.stop]

    def _next_generator(self) -> torch.Generator:
        if self._generator is None:
            self._generator = torch.Generator(self.device)
        self._generator.manual_seed(mix(*self.key, self.calls))
        self.calls += 1
        return self._generator


class SampleRandom(RowRandom):
    """One stream for each sample of `indices`, a function of (seed, index) alone; the same on every device."""

    def __init__(self, seed: int, indices: Sequence[int], *, device: torch.device | str = "cpu"):
        self.index = indices
        self.device = torch.device(device)
        offset = mix(seed)
        self._generators = [torch.Generator().manual_seed(_permute32((offset + i) & _MASK32)) for i in indices]

    def normal(self, *shape: int) -> Tensor:
        return self._stack([torch.randn(shape, generator=generator) for generator in self._generators])

    def uniform(self, *shape: int) -> Tensor:
        return self._stack([torch.rand(shape, generator=generator) for generator in self._generators])

    def _stack(self, rows: list[Tensor]) -> Tensor:
        return torch.stack(rows).to(self.device)
