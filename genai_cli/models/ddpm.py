"""Denoising diffusion (Ho et al. 2020, arXiv:2006.11239): learn to undo Gaussian noise, one timestep at a time.

`genai train model=ddpm dataset=mnist`, then `genai sample run=latest solver=dpmpp_2m steps=20`.
"""

import functools
import math
from typing import Literal

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.random import RowRandom
from genai_cli.rules import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.bound import bits_per_dim
from genai_cli.samplers.editing import draw
from genai_cli.samplers.guidance import conditioned
from genai_cli.samplers.likelihood import negative_log_likelihood
from genai_cli.samplers.predictions import min_snr_weight, prediction_target, prediction_to_x0
from genai_cli.samplers.schedules import SCHEDULES, karras_sigmas, sigma_of_alpha_bar, spaced_timesteps
from genai_cli.samplers.solvers import count_steps

EVALUATED_TIMESTEPS = 4  # of each held-out example
HIGHEST = 80.0  # where a schedule has higher noise levels, beside which no signal is left (Karras et al. 2022, Table 1)


class DDPM(GenerativeModel):
    """Discrete timesteps of noise, undone by a U-Net or transformer (images) or a residual MLP (points).

    `objective` is what the network predicts: the noise (the paper), the clean data, or the velocity (Salimans & Ho
    2022). The default is the velocity, on the cosine schedule: an error of the noise is divided by alpha_t, close to
    zero at the start of sampling, and where the data have no range to clip to, few steps of DDIM throw outliers.
    `min_snr` caps the weight of easy timesteps (Hang et al. 2023); null is the paper's plain mean, L_simple.
    `condition=label` tells the network the class, but for a share `label_dropout` of the examples.
    """

    modalities = ("image", "points", "series", "latents")
    figures = {
        "unweighted_loss": "squared error of the prediction, no likelihood",
        "bits_per_dim": "bits per dimension, upper bound on -log P(x)",
        "nll": "nats, exact -log p(x) of the probability flow but for nll_step_error",
        "nll_step_error": "nats, what half the steps of the flow would change",
    }
    monitor = "unweighted_loss"
    tiny = {"width": 8, "num_timesteps": 8, "sampling_steps": 4}
    rules = {
        "sampling_steps <= num_timesteps": "sampling_steps must be at most num_timesteps",
        "width % 4 == 0": "width must be divisible by 4, the channels of a normalisation group",
        "not heads or width * 2 ** (levels - 1) % heads == 0": "heads must divide width * 2 ** (levels - 1), "
        "the channels of the lowest resolution",
        "backbone != 'dit' or heads != 0": "a transformer needs heads of attention",
        "condition == 'label' or label_dropout == 0.1": "label_dropout belongs to condition=label",
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
        dropout: Fraction = 0.0,
        condition: Literal["label"] | None = None,
        label_dropout: Fraction = 0.1,
        objective: Literal["eps", "x0", "v"] = "v",
        schedule: Literal["linear", "cosine"] = "cosine",
        num_timesteps: PositiveInt = 1000,
        min_snr: PositiveFloat | None = 5.0,
        solver: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"] = "ddim",
        sampling_steps: PositiveInt = 50,
    ):
        super().__init__(spec)
        self.objective, self.min_snr = objective, min_snr
        self.num_timesteps = num_timesteps
        self.solver, self.sampling_steps = solver, sampling_steps
        self.alpha_bar = SCHEDULES[schedule](num_timesteps)  # (T + 1,) float64, for the samplers' arithmetic
        self.levels = sigma_of_alpha_bar(self.alpha_bar)  # (T + 1,) float64, rising from 0: the samplers' sigma
        self.register_buffer("alpha", self.alpha_bar.sqrt().float(), persistent=False)  # (T + 1,)
        self.register_buffer("sigma", (1 - self.alpha_bar).sqrt().float(), persistent=False)  # (T + 1,)
        self.network = Denoiser(
            spec, backbone=backbone, width=width, levels=levels, depth=depth, heads=heads, patch=patch,
            dropout=dropout, condition=condition, label_dropout=label_dropout,
        )  # fmt: skip

    def shard_units(self) -> list[nn.Module]:
        return self.network.shard_units()

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Algorithm 1: the squared error of the prediction at a random timestep of each example."""
        t = 1 + batch.random.integers(self.num_timesteps)  # (B,), in 1..T
        error = self._squared_error(batch, t)  # (B,)
        if self.min_snr is None:
            return error.mean(), {"unweighted_loss": error.mean()}
        weight = min_snr_weight(self.objective, self.alpha[t], self.sigma[t], gamma=self.min_snr)
        return (weight * error).mean(), {"unweighted_loss": error.mean()}

    def evaluate(self, batch: Batch) -> Metrics:
        """The unweighted loss at timesteps spread evenly over each example's own T; the bound or likelihood."""
        offset = batch.random.uniform()  # (B,)
        error = torch.zeros_like(offset)
        for stratum in range(EVALUATED_TIMESTEPS):
            position = (stratum + offset) / EVALUATED_TIMESTEPS  # (B,), in [0, 1)
            t = 1 + (position * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)
            error += self._squared_error(batch, t)
        return {"unweighted_loss": error / EVALUATED_TIMESTEPS, **self._likelihood(batch)}

    @torch.no_grad()
    def sample(
        self,
        random: RowRandom,
        *,
        solver: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"] | None = None,
        steps: PositiveInt | None = None,
        evaluations: PositiveInt | None = None,
        spacing: Literal["uniform", "karras"] | None = None,
        eta: Probability | None = None,
        churn: NonNegativeFloat | None = None,
        label: NonNegativeInt | None = None,
        guidance: NonNegativeFloat | None = None,
        guidance_interval: tuple[NonNegativeFloat, NonNegativeFloat] | None = None,
        guide: GenerativeModel | None = None,
        given: Tensor | None = None,
        keep: Literal["top_half", "bottom_half", "left_half", "right_half", "border", "first_half", "last_half"]
        | PositiveInt
        | None = None,
        strength: Probability | None = None,
        resample: PositiveInt | None = None,
    ) -> Tensor:
        """`solver` and `steps` are by default the model's own; the other options are those of samplers/solvers.py,
        guidance.py and editing.py (`given` and what follows). `evaluations` of the network may be given for `steps`.

        `spacing=uniform` visits the timesteps in even strides, `karras` noise levels between them, too, none above
        HIGHEST. By default heun takes the latter: a slope in sigma says little over a stride from 20,000 to 6.
        """
        denoise = conditioned(
            self.denoise, self.network, random, value_range=self.spec.value_range,
            label=label, guidance=guidance, guidance_interval=guidance_interval, guide=guide,
        )  # fmt: skip
        chosen = solver or self.solver
        is_completed = given is not None and strength is None
        count = count_steps(
            chosen, self.sampling_steps, steps=steps, evaluations=evaluations, is_completed=is_completed
        )
        sigmas = self._sigmas(count, spacing or ("karras" if chosen == "heun" else "uniform"))
        return draw(
            solver, self.solver, denoise, sigmas, random, self.spec.shape, eta=eta, churn=churn,
            given=given, keep=keep, strength=strength, resample=resample,
        )  # fmt: skip

    def denoise(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        """The estimate of x_0 from x = x_0 + sigma eps, the samplers' contract; x_t is alpha_t x."""
        alpha = 1 / math.sqrt(1 + sigma**2)
        t = torch.full((len(x),), self._timestep_of(sigma), device=x.device)
        prediction = self._predict(alpha * x, t, label)
        return prediction_to_x0(self.objective, prediction, alpha * x, alpha, alpha * sigma)

    def _estimate(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """As `denoise`, at a timestep of each row (B,), within the range of images."""
        alpha, sigma = self._rates(t)
        prediction = self._predict(alpha * x, t, label)
        return prediction_to_x0(self.objective, prediction, alpha * x, alpha, sigma).clamp(*self.spec.value_range)

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of timesteps (B,), to be multiplied with (B, *shape)."""
        shape = (-1,) + (1,) * len(self.spec.shape)
        return self.alpha[t].view(shape), self.sigma[t].view(shape)

    def _likelihood(self, batch: Batch) -> Metrics:
        """`nll` in nats of points, by the probability flow; of images the bound, in `bits_per_dim`; none of others."""
        if self.spec.modality not in ("points", "image"):
            return {}
        label = self.network.label_of(batch)
        if self.spec.modality == "image":
            estimate = functools.partial(self._estimate, label=label)
            x0 = batch["image"]
            bin_width = 2 / (self.spec.levels - 1)
            return {"bits_per_dim": bits_per_dim(estimate, x0, batch.random, self.levels, bin_width=bin_width)}
        return negative_log_likelihood(
            lambda x, sigma: self.denoise(x, sigma, label), batch[self.spec.key], batch.random,
            sigma_min=self.levels[1].item(), sigma_max=min(HIGHEST, self.levels[-1].item()),
        )  # fmt: skip

    def _squared_error(self, batch: Batch, t: Tensor) -> Tensor:
        """(B,) mean squared error of the network at timesteps `t` (B,), on fresh noise."""
        x0 = batch[self.spec.key]
        eps = batch.random.normal(*self.spec.shape)
        label = self.network.label_of(batch)
        alpha, sigma = self._rates(t)
        predicted = self._predict(alpha * x0 + sigma * eps, t, label)
        target = prediction_target(self.objective, x0, eps, alpha, sigma)
        return (predicted - target).square().flatten(1).mean(1)

    def _predict(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """The network's output; it is told the time as if T were 1000, whatever T is."""
        return self.network(x_t, t * (1000 / self.num_timesteps), label=label)

    def _sigmas(self, steps: int, spacing: str) -> list[float]:
        """The levels that a sampler visits, from that of x_T to 0."""
        if spacing == "karras":
            return karras_sigmas(steps, self.levels[1].item(), min(HIGHEST, self.levels[-1].item()))
        return [self.levels[t].item() for t in spaced_timesteps(self.num_timesteps, steps)]

    def _timestep_of(self, sigma: float) -> float:
        """t of a noise level: whole where it is one of the T, between two of them linear in sigma; at least 1."""
        above = int(torch.searchsorted(self.levels, sigma).clamp(1, self.num_timesteps))
        low, high = self.levels[above - 1].item(), self.levels[above].item()
        return max(1.0, above - 1 + min(1.0, (sigma - low) / (high - low)))
