"""Normalising flows of coupling layers: RealNVP (arXiv:1605.08803), Glow (arXiv:1807.03039), neural spline flows
(arXiv:1906.04032). An invertible map of the data to N(0, I): exact density, exact inverse.

`genai train model=nsf dataset=toy2d`, `genai train model=glow dataset=mnist`, `genai sample run=latest temperature=0.7`
"""

import math
from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.dequantise import dequantise, inverse_logit, logit, quantise
from genai_cli.nn.flow import (
    ActNorm,
    Chain,
    ChannelMixing,
    Coupling,
    Scales,
    Squeeze,
    checkerboard,
    conv_network,
    first_half,
    point_network,
)
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import clamp_to_range
from genai_cli.nn.spline import num_parameters
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

LEVELS = 2


class Flow(GenerativeModel):
    """Steps of activation norm, mixing and coupling; for images, `depth` of them at each of `levels` scales.

    `mixing` is what changes the halves of a coupling: `alternating` swaps them (RealNVP: checkerboards, then channels,
    `depth` couplings of each at a scale), `linear` learns an invertible matrix over the channels (Glow). `coupling` is
    affine or a rational-quadratic spline of `num_bins` bins (8) over [-bound, bound] (4). With `token_mixing` the
    networks of couplings on channels see the whole image, not their neighbourhood alone; it and `levels` are of images,
    by default true and 2. `conditional` learns
    p(x | label): latents of each class are normal with a mean and variance of its own (Kingma & Dhariwal 2018, h(y)).
    """

    modalities = ("image", "points", "series")
    monitor = "nll"
    tiny = {"width": 4, "depth": 1}
    rules = {
        "coupling == 'spline' or num_bins is None": "num_bins belongs to coupling=spline",
        "coupling == 'spline' or bound is None": "bound belongs to coupling=spline",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        coupling: Literal["affine", "spline"] = "affine",
        mixing: Literal["alternating", "linear"] = "linear",
        width: PositiveInt = 64,
        depth: PositiveInt = 6,
        levels: PositiveInt | None = None,
        num_bins: PositiveInt | None = None,
        bound: PositiveFloat | None = None,
        token_mixing: bool | None = None,
        conditional: bool = False,
    ):
        super().__init__(spec)
        if conditional and not spec.classes:
            raise ValueError("model.conditional=true needs data with labels; take model.conditional=false")
        self.latent_dim = math.prod(spec.shape)
        self.num_classes = len(spec.classes) if conditional else 0
        if conditional:
            self.mean = torch.nn.Parameter(torch.zeros(self.num_classes, self.latent_dim))  # (K, D)
            self.log_std = torch.nn.Parameter(torch.zeros(self.num_classes, self.latent_dim))  # (K, D)
        if spec.has_levels:  # of points and series nll is exact
            self.figures = {
                "nll": "nats, upper bound on -log p(x)",
                "bits_per_dim": "bits per dimension, upper bound",
            }
        self.num_bins = (num_bins or 8) if coupling == "spline" else 0
        self.bound, self.width, self.token_mixing = bound or 4.0, width, token_mixing is not False
        is_linear = mixing == "linear"
        if len(spec.shape) != 3:  # points, and series as points of as many numbers
            for key, value in (("levels", levels), ("token_mixing", token_mixing)):
                if value is not None:
                    raise ValueError(
                        f"model.{key}={str(value).lower()} is of images, and these are {spec.modality}: leave it out, "
                        f"or give model.{key}=null"
                    )
            steps = self._steps((self.latent_dim,), depth, is_linear)
            self.flow = Scales([Chain(steps)], (self.latent_dim,))
            return
        levels = levels or LEVELS
        side = 2**levels
        if spec.shape[1] % side or spec.shape[2] % side:
            raise ValueError(
                f"model.levels={levels} halves the sides {levels} times, but images of {spec.shape[1]} x "
                f"{spec.shape[2]} are not divisible by {side}: take fewer levels"
            )
        chains, (channels, height, columns) = [], spec.shape
        for _ in range(levels):
            boards = [] if is_linear else self._boards(channels, height, columns, depth)
            channels, height, columns = 4 * channels, height // 2, columns // 2
            steps = self._steps((channels, height, columns), depth, is_linear)
            chains.append(Chain([*boards, Squeeze(), *steps]))
            channels -= channels // 2
        self.flow = Scales(chains, spec.shape)

    def _steps(self, shape: tuple[int, ...], depth: int, is_linear: bool) -> list[torch.nn.Module]:
        """`depth` steps whose couplings keep half of the channels.

        The last one changes the first half, with which a scale is done (`Scales`): so its latents, normal and of their
        own, stand for what the other half leaves open about them.
        """
        steps: list[torch.nn.Module] = []
        for index in range(depth):
            is_changed = first_half(shape[0], len(shape))
            is_kept = ~is_changed if is_linear or (depth - index) % 2 else is_changed
            mixing = [ChannelMixing(shape[0])] if is_linear else []
            steps += [ActNorm(shape[0]), *mixing, self._coupling(is_kept, shape)]
        return steps

    def _boards(self, channels: int, height: int, columns: int, depth: int) -> list[torch.nn.Module]:
        """`depth` steps whose couplings keep every other pixel."""
        steps: list[torch.nn.Module] = []
        for index in range(depth):
            is_kept = checkerboard(height, columns)
            steps += [ActNorm(channels), self._coupling(~is_kept if index % 2 else is_kept, (channels,))]
        return steps

    def _coupling(self, is_kept: Tensor, shape: tuple[int, ...]) -> Coupling:
        """Of points (C,), or of images (C, H, W), (C,) where their network sees the neighbourhood alone."""
        outputs = shape[0] * (num_parameters(self.num_bins) if self.num_bins else 2)
        if is_kept.dim() == 1:
            network = point_network(shape[0], outputs, self.width)
        else:
            mixed_size = shape[1:] if self.token_mixing and len(shape) == 3 else None
            network = conv_network(shape[0], outputs, self.width, mixed_size=mixed_size)
        return Coupling(is_kept, network, num_bins=self.num_bins, bound=self.bound)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per number."""
        nll = self.nll(batch).mean()
        return nll / self.latent_dim, {"nll": nll.detach()}

    def nll(self, batch: Batch) -> Tensor:
        """-log p(x) in nats, (B,): a density; of images a bound for their levels, with one draw of noise."""
        x, label = batch[self.spec.key], batch["label"] if self.num_classes else None
        if not self.spec.has_levels:
            return self.density_nll(x.flatten(1), label)
        noise = batch.random.uniform(*self.spec.shape)
        y, log_det = logit(dequantise(x, noise, value_range=self.spec.value_range, levels=self.spec.levels))
        return self.density_nll(y, label) - log_det + self.latent_dim * math.log(self.spec.levels)

    def density_nll(self, y: Tensor, label: Tensor | None = None) -> Tensor:
        """-log density in nats of unbounded data (B, *shape), by the change of variables."""
        latent, log_det = self.flow(y)
        if label is not None:
            log_std = self.log_std[label]  # (B, D)
            latent, log_det = (latent - self.mean[label]) * (-log_std).exp(), log_det - log_std.sum(1)
        log_prior = -0.5 * (latent.square() + math.log(2 * math.pi)).sum(1)
        return -(log_prior + log_det)

    def evaluate(self, batch: Batch) -> Metrics:
        nll = self.nll(batch)
        if not self.spec.has_levels:
            return {"nll": nll}
        return {"nll": nll, "bits_per_dim": nll / (self.latent_dim * math.log(2))}

    def sample(
        self, random: RowRandom, *, temperature: NonNegativeFloat = 1.0, label: NonNegativeInt | None = None
    ) -> Tensor:
        """`temperature` below 1 draws latents nearer to their mean: cleaner, less diverse (Glow, Section 6)."""
        if label is not None and not self.num_classes:
            raise ValueError(f"label={label}: the model does not know classes; train it with model.conditional=true")
        return self.decode(self._draw_latent(random, temperature, label))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return self._draw_latent(random, 1.0, None)

    def _draw_latent(self, random: RowRandom, temperature: float, label: int | None) -> Tensor:
        """(B, latent_dim), of the class of each row where there are classes."""
        latent = temperature * random.normal(self.latent_dim)
        if not self.num_classes:
            return latent
        labels = sample_labels(random, self.num_classes, label)
        return self.mean[labels] + self.log_std[labels].exp() * latent

    def decode(self, latent: Tensor) -> Tensor:
        y = self.flow.inverse(latent)
        if not self.spec.has_levels:
            return clamp_to_range(y.unflatten(1, self.spec.shape), self.spec.value_range)
        return quantise(inverse_logit(y), value_range=self.spec.value_range, levels=self.spec.levels)

    def encode(self, x: Tensor) -> Tensor:
        """Images are encoded by the middles of their levels."""
        if not self.spec.has_levels:
            x = x.flatten(1)
        else:
            middle = torch.full_like(x, 0.5)
            x, _ = logit(dequantise(x, middle, value_range=self.spec.value_range, levels=self.spec.levels))
        return self.flow(x)[0]
