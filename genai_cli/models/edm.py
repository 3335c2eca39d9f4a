"""EDM (Karras et al. 2022, arXiv:2206.00364): diffusion in continuous noise levels, every part of it of unit size.

`genai train model=edm dataset=mnist`, then `genai sample run=latest steps=18`.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.random import RowRandom
from genai_cli.rules import (
    FiniteFloat,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
)
from genai_cli.samplers.editing import draw
from genai_cli.samplers.guidance import conditioned
from genai_cli.samplers.likelihood import negative_log_likelihood
from genai_cli.samplers.schedules import karras_sigmas
from genai_cli.samplers.solvers import count_steps

EVALUATED_LEVELS = 4  # of each held-out example


class EDM(GenerativeModel):
    """A denoiser D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) of x = x_0 + sigma eps, F the network.

    `sigma_data` is the standard deviation of the data: null is the paper's 0.5 where these have a range, else 1. In
    training ln sigma is normal, with `noise_mean` and `noise_std` (P_mean and P_std); a mean of null is as far below
    `sigma_data` as the paper's -1.2. In sampling sigma falls from `sigma_max` to `sigma_min` and then to 0.
    `condition=label` is as in `ddpm`.
    """

    modalities = ("image", "points", "series", "latents")
    figures = {
        "nll": "nats, exact -log p(x) of the probability flow but for nll_step_error",
        "nll_step_error": "nats, what half the steps of the flow would change",
    }
    monitor = "loss"
    tiny = {"width": 8, "sampling_steps": 3}
    rules = {
        "sigma_min < sigma_max": "sigma_min must be below sigma_max",
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
        sigma_data: PositiveFloat | None = None,
        noise_mean: FiniteFloat | None = None,
        noise_std: PositiveFloat = 1.2,
        sigma_min: PositiveFloat = 0.002,
        sigma_max: PositiveFloat = 80.0,
        solver: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"] = "heun",
        sampling_steps: PositiveInt = 18,
    ):
        super().__init__(spec)
        self.sigma_data = sigma_data or (1.0 if spec.value_range is None else 0.5)
        self.noise_mean = math.log(self.sigma_data) - 0.5 if noise_mean is None else noise_mean
        self.noise_std = noise_std
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.solver, self.sampling_steps = solver, sampling_steps
        self.network = Denoiser(
            spec, backbone=backbone, width=width, levels=levels, depth=depth, heads=heads, patch=patch,
            dropout=dropout, condition=condition, label_dropout=label_dropout,
        )  # fmt: skip

    def shard_units(self) -> list[nn.Module]:
        return self.network.shard_units()

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        sigma = (self.noise_mean + self.noise_std * batch.random.normal()).exp()  # (B,)
        return self._squared_error(batch, sigma).mean(), {}

    def evaluate(self, batch: Batch) -> Metrics:
        """The loss at levels spread evenly over the quantiles of those of training; the likelihood of points."""
        offset = batch.random.uniform()  # (B,)
        error = torch.zeros_like(offset)
        for stratum in range(EVALUATED_LEVELS):
            quantile = (stratum + offset.clamp(1e-6, 1 - 1e-6)) / EVALUATED_LEVELS  # (B,), in (0, 1)
            error += self._squared_error(
                batch, (self.noise_mean + self.noise_std * torch.special.ndtri(quantile)).exp()
            )
        return {"loss": error / EVALUATED_LEVELS, **self._likelihood(batch)}

    @torch.no_grad()
    def sample(
        self,
        random: RowRandom,
        *,
        solver: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"] | None = None,
        steps: PositiveInt | None = None,
        evaluations: PositiveInt | None = None,
        rho: PositiveFloat = 7.0,
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
        """Noise levels even in sigma^(1 / rho). `solver` and `steps` are by default the model's own; `evaluations` of
        the network may be given for `steps`."""
        denoise = conditioned(
            self.denoise, self.network, random, value_range=self.spec.value_range,
            label=label, guidance=guidance, guidance_interval=guidance_interval, guide=guide,
        )  # fmt: skip
        chosen = solver or self.solver
        is_completed = given is not None and strength is None
        count = count_steps(
            chosen, self.sampling_steps, steps=steps, evaluations=evaluations, is_completed=is_completed
        )
        sigmas = karras_sigmas(count, self.sigma_min, self.sigma_max, rho=rho)
        return draw(
            solver, self.solver, denoise, sigmas, random, self.spec.shape, eta=eta, churn=churn,
            given=given, keep=keep, strength=strength, resample=resample,
        )  # fmt: skip

    def denoise(self, x: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """D(x; sigma), the samplers' contract (Eq. 7); also for one noise level of each row (B,)."""
        sigmas = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        skip, out, _ = self._scalings(sigmas)
        return skip * x + out * self._predict(x, sigmas, label)

    def _likelihood(self, batch: Batch) -> Metrics:
        """`nll` in nats of points, by the probability flow; of images it would take minutes a thousand."""
        if self.spec.modality != "points":
            return {}
        label = self.network.label_of(batch)
        return negative_log_likelihood(
            lambda x, sigma: self.denoise(x, sigma, label), batch[self.spec.key], batch.random,
            sigma_min=self.sigma_min, sigma_max=self.sigma_max,
        )  # fmt: skip

    def _squared_error(self, batch: Batch, sigma: Tensor) -> Tensor:
        """(B,) mean squared error of F at noise levels `sigma` (B,): that of D times lambda = 1 / c_out^2 (Eq. 8)."""
        x0 = batch[self.spec.key]
        eps = batch.random.normal(*self.spec.shape)
        label = self.network.label_of(batch)
        skip, out, _ = self._scalings(sigma)
        x = x0 + self._to_shape(sigma) * eps
        target = (x0 - skip * x) / out
        return (self._predict(x, sigma, label) - target).square().flatten(1).mean(1)

    def _predict(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """F(c_in x; c_noise), c_noise the paper's (1 / 4) ln sigma, a thousandfold for sinusoids made for timesteps."""
        _, _, scale = self._scalings(sigma)
        return self.network(scale * x, 250 * sigma.log(), label=label)

    def _scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in of table 1, to be multiplied with (B, *shape)."""
        sigma = self._to_shape(sigma)
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), 1 / total.sqrt()

    def _to_shape(self, x: Tensor) -> Tensor:
        return x.view(-1, *(1 for _ in self.spec.shape))
