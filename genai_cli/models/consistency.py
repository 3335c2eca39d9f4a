"""Consistency models (Song et al. 2023, arXiv:2303.01469): one function from any noise level straight to the data.

`genai train model=consistency dataset=mnist`, then `genai sample run=latest steps=1` (or 2, 4).
"""

import functools
import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.random import RowRandom
from genai_cli.rules import FiniteFloat, FolderName, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.editing import check_editing, start_of_given
from genai_cli.samplers.keep import given_rows, known_part
from genai_cli.samplers.schedules import karras_sigmas

EVALUATED_LEVELS = 4  # of each held-out example


class Consistency(GenerativeModel):
    """f(x, sigma) = c_skip x + c_out F, the same for all x on a path of the probability flow; f(x, sigma_min) = x.

    Trained from data alone, as improved by Song & Dhariwal (2023, arXiv:2310.14189, table 1): the estimates at two
    neighbouring noise levels with one noise are brought together by a pseudo-Huber distance, no average of the weights
    being the target. There are `first_intervals` between the levels at first, and twice as many every `double_every`
    steps up to `final_intervals`. ln sigma is normal with `noise_mean` (null: as far below `sigma_data` as their -1.1)
    and `noise_std`. With `teacher`, a run of `edm`, the neighbour is where a step of its flow leads: distillation.
    """

    modalities = ("image", "points", "series")
    figures = {"inconsistency": "pseudo-Huber distance of two neighbouring estimates, weighted as in training"}
    tiny = {"width": 8, "sampling_steps": 2}
    rules = {
        "sigma_min < sigma_max": "sigma_min must be below sigma_max",
        "first_intervals <= final_intervals": "first_intervals must be at most final_intervals",
        "width % 4 == 0": "width must be divisible by 4, the channels of a normalisation group",
        "not heads or width * 2 ** (levels - 1) % heads == 0": "heads must divide width * 2 ** (levels - 1), "
        "the channels of the lowest resolution",
        "backbone != 'dit' or heads != 0": "a transformer needs heads of attention",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        backbone: Literal["unet", "dit", "mlp"] | None = None,
        width: PositiveInt = 64,
        levels: PositiveInt = 2,
        depth: PositiveInt = 1,
        heads: NonNegativeInt | None = None,
        patch: PositiveInt | None = None,
        condition: Literal["label"] | None = None,
        sigma_data: PositiveFloat | None = None,
        sigma_min: PositiveFloat = 0.002,
        sigma_max: PositiveFloat = 80.0,
        noise_mean: FiniteFloat | None = None,
        noise_std: PositiveFloat = 2.0,
        first_intervals: PositiveInt = 10,
        final_intervals: PositiveInt = 160,
        double_every: PositiveInt = 1600,
        huber: PositiveFloat = 0.00054,
        teacher: FolderName | None = None,
        sampling_steps: PositiveInt = 1,
    ):
        super().__init__(spec)
        self.sigma_data = sigma_data or (1.0 if spec.value_range is None else 0.5)
        self.noise_mean = math.log(self.sigma_data / 0.5) - 1.1 if noise_mean is None else noise_mean
        self.noise_std = noise_std
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.first_intervals, self.final_intervals, self.double_every = first_intervals, final_intervals, double_every
        self.huber = huber * math.sqrt(math.prod(spec.shape))  # c (arXiv:2310.14189, Eq. 8)
        self.sampling_steps = sampling_steps
        self._teachers: list[GenerativeModel] = []  # at most one; in a list, for it is no part of this model
        # No dropout: the two estimates must be of one function.
        self.network = Denoiser(
            spec, backbone=backbone, width=width, levels=levels, depth=depth, heads=heads, patch=patch,
            dropout=0.0, condition=condition, label_dropout=0.0,
        )  # fmt: skip

    def train_step(self, step: Step) -> None:
        step.minimize("model", functools.partial(self.loss, intervals=self.intervals_at(step.number)))

    def intervals_at(self, number: int) -> int:
        """N(k) - 1, between the noise levels after `number` steps (arXiv:2310.14189, Eq. 13)."""
        doubled = self.first_intervals * 2 ** min(number // self.double_every, 30)
        return min(doubled, self.final_intervals)

    def loss(self, batch: Batch, *, intervals: int | None = None) -> tuple[Tensor, Metrics]:
        return self._inconsistency(batch, batch.random.uniform(), intervals or self.final_intervals).mean(), {}

    def evaluate(self, batch: Batch) -> Metrics:
        """The loss among the final levels, at quantiles spread evenly. It says little of samples: a constant has 0."""
        offset = batch.random.uniform()  # (B,)
        total = torch.zeros_like(offset)
        for stratum in range(EVALUATED_LEVELS):
            total += self._inconsistency(batch, (stratum + offset) / EVALUATED_LEVELS, self.final_intervals)
        return {"inconsistency": total / EVALUATED_LEVELS}

    @torch.no_grad()
    def sample(
        self,
        random: RowRandom,
        *,
        steps: PositiveInt | None = None,
        label: NonNegativeInt | None = None,
        given: Tensor | None = None,
        keep: Literal["top_half", "bottom_half", "left_half", "right_half", "border", "first_half", "last_half"]
        | PositiveInt
        | None = None,
        strength: Probability | None = None,
    ) -> Tensor:
        """Algorithm 1: jump to the data, add noise of a lower level, jump again; `steps` evaluations in all.

        The levels are even in sigma^(1 / 7). Of `given` images, every jump's kept pixels are replaced (Algorithm 4);
        with `strength`, the first jump begins at given images with noise.
        """
        check_editing(self.spec.shape, given=given, keep=keep, strength=strength)
        if label is not None and not self.network.num_classes:
            raise ValueError(f"label={label} needs a model that was trained with model.condition=label")
        labels = sample_labels(random, self.network.num_classes, label) if self.network.num_classes else None
        steps = steps or self.sampling_steps
        sigmas = [*karras_sigmas(steps + 1, self.sigma_min, self.sigma_max)[:steps], 0.0]
        rows, known = None if given is None else given_rows(given, random), None
        if rows is not None and strength is None:
            rows, known = known_part(rows, keep, self.spec.shape)
        if strength is not None:
            sigmas = start_of_given(sigmas, strength)
        x = sigmas[0] * random.normal(*self.spec.shape)
        if rows is not None:
            x = x + (rows if known is None else known * rows)
        for sigma, lower in pairwise(sigmas):
            x = self.end_of_path(x, sigma, labels)
            x = x if self.spec.value_range is None else x.clamp(*self.spec.value_range)
            x = x if known is None else torch.where(known, rows, x)
            if lower > 0:
                x = x + math.sqrt(lower**2 - self.sigma_min**2) * random.normal(*self.spec.shape)
        return x

    def end_of_path(self, x: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """f(x, sigma), for one noise level or one of each row (B,): where the path through x ends.

        It is no mean of x_0 given x, and so not `denoise` of the samplers' contract.
        """
        sigmas = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        wide = sigmas.view(-1, *(1 for _ in self.spec.shape))
        above = wide - self.sigma_min  # Eq. 5 and appendix C: at sigma_min, c_skip = 1 and c_out = 0
        norm = (wide**2 + self.sigma_data**2).sqrt()
        skip, out = self.sigma_data**2 / (above**2 + self.sigma_data**2), self.sigma_data * above / norm
        return skip * x + out * self.network(x / norm, 250 * sigmas.log(), label=label)

    def learn_from(self, teacher: GenerativeModel) -> None:
        """Take the flow of a trained denoiser as that between the levels (Algorithm 2, with Heun's step)."""
        if not (hasattr(teacher, "sigma_data") and hasattr(teacher, "denoise")):
            raise ValueError("is no run of model=edm, whose flow this model can learn")
        if teacher.network.num_classes and not self.network.num_classes:
            raise ValueError("is told the class: add model.condition=label")
        self._teachers = [teacher]

    def _inconsistency(self, batch: Batch, quantile: Tensor, intervals: int) -> Tensor:
        """(B,) lambda d(f(x_(i + 1)), f(x_i)) of one noise at the levels of the `quantile` (B,), f(x_i) held fixed."""
        x0, label = batch[self.spec.key], self.network.label_of(batch)
        higher, lower = self._draw_levels(quantile, intervals)  # each (B,)
        eps = batch.random.normal(*self.spec.shape)
        shape = (-1,) + (1,) * len(self.spec.shape)
        x_high = x0 + higher.view(shape) * eps
        x_low = x0 + lower.view(shape) * eps if not self._teachers else self._follow(x_high, higher, lower, label)
        with torch.no_grad():
            target = self.end_of_path(x_low, lower, label)
        difference = (self.end_of_path(x_high, higher, label) - target).flatten(1)
        distance = (difference.square().sum(1) + self.huber**2).sqrt() - self.huber
        return distance / (higher - lower) / math.sqrt(difference.shape[1])  # by the size of the data, as it is a mean

    def _draw_levels(self, quantile: Tensor, intervals: int) -> tuple[Tensor, Tensor]:
        """sigma_(i + 1) and sigma_i (B,), i drawn by its share of a normal in ln sigma (arXiv:2310.14189, Eq. 10)."""
        falling = karras_sigmas(intervals + 1, self.sigma_min, self.sigma_max)[:-1]
        sigmas = torch.tensor(falling[::-1], dtype=torch.float64, device=quantile.device)  # (N,)
        below = torch.special.ndtr((sigmas.log() - self.noise_mean) / self.noise_std)
        share = (below - below[0]) / (below[-1] - below[0])
        i = torch.searchsorted(share, quantile.double(), right=True).clamp(1, intervals) - 1
        return sigmas[i + 1].to(quantile), sigmas[i].to(quantile)

    @torch.no_grad()
    def _follow(self, x: Tensor, higher: Tensor, lower: Tensor, label: Tensor | None) -> Tensor:
        """Heun's step of the teacher's flow dx / dsigma = (x - D(x; sigma)) / sigma, of each row its own."""
        (teacher,) = self._teachers
        label = label if teacher.network.num_classes else None
        high, low = (sigma.view(-1, *(1 for _ in self.spec.shape)) for sigma in (higher, lower))
        slope = (x - teacher.denoise(x, higher, label)) / high
        ahead = x + (low - high) * slope
        return x + (low - high) / 2 * (slope + (ahead - teacher.denoise(ahead, lower, label)) / low)
