"""Invertible layers with a known Jacobian, for points (B, D) and images (B, C, H, W).

Each maps x to (y, log |det dy/dx|), the latter (B,), and has an `inverse`. Couplings and scales are of RealNVP (Dinh et
al. 2017, arXiv:1605.08803), activation norm and the learned mixing of channels of Glow (Kingma & Dhariwal 2018,
arXiv:1807.03039), splines of Durkan et al. 2019 (nn/spline.py).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn import spline
from genai_cli.nn.linear import FastLinear
from genai_cli.nn.ranks import sum_over_ranks


class Chain(nn.Module):
    """One layer after the other."""

    def __init__(self, layers: Iterable[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, change = layer(x)
            log_det = log_det + change
        return x, log_det

    def inverse(self, y: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            y = layer.inverse(y)
        return y


class ActNorm(nn.Module):
    """y = (x - mean) / std * exp(log_scale) + bias, by channel: mean and std are those of the first batch in training.

    They stay as they are from then on, so unlike in batch normalisation one example never changes another's.
    """

    mean: Tensor  # (C,)
    std: Tensor  # (C,)
    is_set: Tensor  # bool

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("is_set", torch.tensor(False))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.is_set:
            self._measure(x)
        log_det = self._log_scale().sum() * x[0, 0].numel()
        y = (x - by_channel(self.mean, x)) * by_channel(self._log_scale().exp(), x) + by_channel(self.bias, x)
        return y, log_det.expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return (y - by_channel(self.bias, y)) * by_channel((-self._log_scale()).exp(), y) + by_channel(self.mean, y)

    def _log_scale(self) -> Tensor:
        return self.log_scale - self.std.log()

    @torch.no_grad()
    def _measure(self, x: Tensor) -> None:
        """The mean and standard deviation of each channel, over the rows of all ranks."""
        values = x.transpose(0, 1).flatten(1)  # (C, n)
        ones = values.new_full((1,), values.shape[1])
        count, total = sum_over_ranks(torch.cat([ones, values.sum(1)])).tensor_split([1])
        self.mean.copy_(total / count)
        square = sum_over_ranks((values - self.mean.unsqueeze(1)).square().sum(1))
        self.std.copy_((square / count).sqrt().clamp(min=1e-3))
        self.is_set.fill_(True)


class ChannelMixing(nn.Module):
    """y = W x over the channels, W = P L (U + diag(s)), P fixed: the "invertible 1x1 convolution" (Glow, Eq. 10)."""

    permutation: Tensor  # (C, C)
    sign: Tensor  # (C,), of s

    def __init__(self, channels: int):
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def weight(self) -> Tensor:
        identity = torch.eye(len(self.sign), device=self.sign.device, dtype=self.lower.dtype)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())
        return self.permutation @ (self.lower.tril(-1) + identity) @ upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = self.log_diagonal.sum() * x[0, 0].numel()
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would not come back from the inverse
            return torch.einsum("ij,bj...->bi...", self.weight(), x), log_det.expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        with torch.autocast(y.device.type, enabled=False):
            inverse = torch.linalg.inv(self.weight().double()).to(y.dtype)
            return torch.einsum("ij,bj...->bi...", inverse, y)


class Coupling(nn.Module):
    """What `is_kept` stays, and tells a network how each other number is mapped: by a line or by a spline.

    `is_kept` is a bool tensor that broadcasts over x[0]. `num_bins` = 0 is the affine map, whose log scale is kept
    within (-2, 2) by a tanh.
    """

    is_kept: Tensor

    def __init__(self, is_kept: Tensor, network: nn.Module, *, num_bins: int = 0, bound: float = 4.0):
        super().__init__()
        self.register_buffer("is_kept", is_kept, persistent=False)
        self.network = network  # (B, C, ...) -> (B, P * C, ...)
        self.num_bins, self.bound = num_bins, bound

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parameters = self._maps(x)
        if self.num_bins:
            y, log_slope = spline.spline(x, parameters, bound=self.bound)
        else:
            log_slope, shift = scale_and_shift(parameters)
            y = x * log_slope.exp() + shift
        return torch.where(self.is_kept, x, y), torch.where(self.is_kept, 0.0, log_slope).flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        parameters = self._maps(y)
        if self.num_bins:
            x = spline.inverse_spline(y, parameters, bound=self.bound)
        else:
            log_slope, shift = scale_and_shift(parameters)
            x = (y - shift) * (-log_slope).exp()
        return torch.where(self.is_kept, y, x)

    def _maps(self, x: Tensor) -> Tensor:
        """(B, C, ..., P), from what is kept."""
        output = self.network(torch.where(self.is_kept, x, 0.0))
        return output.to(x.dtype).unflatten(1, (-1, x.shape[1])).movedim(1, -1)


class Squeeze(nn.Module):
    """(B, C, H, W) to (B, 4 C, H / 2, W / 2): blocks of 2 x 2 pixels become channels."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return F.pixel_shuffle(y, 2)


class Scales(nn.Module):
    """Chains one after the other; after each but the last, half of the channels are done (RealNVP, Section 3.6).

    (B, ...) to latents (B, D).
    """

    def __init__(self, chains: Iterable[Chain], shape: tuple[int, ...]):
        super().__init__()
        self.chains = nn.ModuleList(chains)
        self.shapes = []  # of what each chain puts out
        for _ in self.chains:
            if len(shape) == 3:
                shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
            self.shapes.append(shape)
            if len(shape) == 3:
                shape = (shape[0] - shape[0] // 2, *shape[1:])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        done, log_det = [], x.new_zeros(len(x))
        for index, chain in enumerate(self.chains):
            x, change = chain(x)
            log_det = log_det + change
            if index < len(self.chains) - 1:
                finished, x = x.tensor_split([x.shape[1] // 2], dim=1)
                done.append(finished.flatten(1))
        return torch.cat([*done, x.flatten(1)], dim=1), log_det

    def inverse(self, latent: Tensor) -> Tensor:
        halves = [(shape[0] // 2, *shape[1:]) for shape in self.shapes[:-1]]
        sizes = [torch.Size(shape).numel() for shape in halves]
        *done, x = latent.split([*sizes, latent.shape[1] - sum(sizes)], dim=1)
        x = self.chains[-1].inverse(x.unflatten(1, self.shapes[-1]))
        for chain, shape, finished in reversed(list(zip(self.chains, halves, done, strict=False))):
            x = chain.inverse(torch.cat([finished.unflatten(1, shape), x], dim=1))
        return x


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) in a shape that broadcasts over x (B, C, ...)."""
    return values.view(-1, *[1] * (x.dim() - 2))


def scale_and_shift(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2) to a log scale in (-2, 2) and a shift."""
    log_scale, shift = parameters.unbind(-1)
    return 2 * torch.tanh(log_scale / 2), shift


def checkerboard(height: int, width: int) -> Tensor:
    """(1, H, W) bool."""
    return (torch.arange(height).unsqueeze(1) + torch.arange(width)).unsqueeze(0) % 2 == 0


def first_half(channels: int, num_dims: int) -> Tensor:
    """(C, 1, ...) bool, true for the first half of the channels; `num_dims` counts C."""
    return (torch.arange(channels) < channels // 2).view(-1, *[1] * (num_dims - 1))


class TokenMixing(nn.Module):
    """x + W relu(x) + b over the places of each channel of (B, C, H, W) (Tolstikhin et al. 2021, arXiv:2105.01601).

    Zero at first. Convolutions of so few layers see a neighbourhood; with this, a coupling sees the whole image.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.linear = zeros(FastLinear(size[0] * size[1], size[0] * size[1]))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(F.relu(x).flatten(2)).view_as(x)


def conv_network(channels: int, outputs: int, width: int, *, mixed_size: tuple[int, int] | None = None) -> nn.Module:
    """3x3, 1x1, 3x3 (Glow, Section 5), with token mixing over images of `mixed_size`, if any; zero at first."""
    mixing = [] if mixed_size is None else [TokenMixing(mixed_size)]
    first, second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 1)
    return nn.Sequential(
        first, *mixing, nn.ReLU(), second, nn.ReLU(), zeros(nn.Conv2d(width, outputs, 3, padding=1))
    )  # fmt: skip


def point_network(num_dims: int, outputs: int, width: int) -> nn.Module:
    """Two hidden layers; zero at first."""
    layers = [nn.Linear(num_dims, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, zeros(nn.Linear(width, outputs)))


def zeros(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
