"""Denoising diffusion (Ho et al. 2020, arXiv:2006.11239): learn to undo Gaussian noise, one timestep at a time.

`genai train model=ddpm dataset=mnist`, then `genai sample run=latest solver=ddim steps=50`.
"""

from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.denoiser_mlp import DenoiserMLP
from genai_cli.nn.random import RowRandom
from genai_cli.nn.unet import UNet
from genai_cli.rules import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.diffusion import (
    SCHEDULES,
    ancestral,
    ddim,
    min_snr_weight,
    prediction_target,
    prediction_to_x0,
)

EVALUATED_TIMESTEPS = 4  # of each held-out example


class DDPM(GenerativeModel):
    """A U-Net for images, a residual MLP of the U-Net's largest width for points.

    `objective` is what the network predicts: the noise (the paper), the clean data, or the velocity (Salimans & Ho
    2022). The default is the velocity, on the cosine schedule: an error of the noise is divided by alpha_t, close to
    zero at the start of sampling, and where the data have no range to clip to, few steps of DDIM throw outliers.
    `min_snr` caps the weight of easy timesteps (Hang et al. 2023); null is the paper's plain mean, L_simple.
    """

    modalities = ("image", "points")
    monitor = "loss"
    tiny = {"width": 8, "levels": 2, "num_timesteps": 8, "sampling_steps": 4}
    rules = {
        "sampling_steps <= num_timesteps": "sampling_steps must be at most num_timesteps",
        "width % 4 == 0": "width must be divisible by 4, the channels of a normalisation group",
        "heads == 0 or width * 2 ** (levels - 1) % heads == 0": "heads must divide width * 2 ** (levels - 1), "
        "the channels of the lowest resolution",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 32,
        levels: PositiveInt = 3,
        depth: PositiveInt = 1,
        heads: NonNegativeInt = 4,
        dropout: Fraction = 0.0,
        objective: Literal["eps", "x0", "v"] = "v",
        schedule: Literal["linear", "cosine"] = "cosine",
        num_timesteps: PositiveInt = 1000,
        min_snr: PositiveFloat | None = None,
        solver: Literal["ddpm", "ddim"] = "ddim",
        sampling_steps: PositiveInt = 50,
    ):
        super().__init__(spec)
        self.objective, self.min_snr = objective, min_snr
        self.num_timesteps = num_timesteps
        self.solver, self.sampling_steps = solver, sampling_steps
        self.alpha_bar = SCHEDULES[schedule](num_timesteps)  # (T + 1,) float64, for the samplers' arithmetic
        self.register_buffer("alpha", self.alpha_bar.sqrt().float(), persistent=False)  # (T + 1,)
        self.register_buffer("sigma", (1 - self.alpha_bar).sqrt().float(), persistent=False)  # (T + 1,)
        if spec.modality == "image":
            self.network = UNet(spec.shape, width=width, levels=levels, depth=depth, heads=heads, dropout=dropout)
        else:
            widest = width * 2 ** (levels - 1)
            self.network = DenoiserMLP(spec.shape[0], width=widest, depth=levels * depth, dropout=dropout)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Algorithm 1: the squared error of the prediction at a random timestep of each example."""
        t = 1 + batch.random.integers(self.num_timesteps)  # (B,), in 1..T
        error = self._squared_error(batch, t)  # (B,)
        if self.min_snr is None:
            return error.mean(), {}
        weight = min_snr_weight(self.objective, self.alpha[t], self.sigma[t], gamma=self.min_snr)
        return (weight * error).mean(), {"unweighted": error.mean()}

    def evaluate(self, batch: Batch) -> Metrics:
        """The unweighted loss at timesteps spread evenly over each example's own T. Not a likelihood."""
        offset = batch.random.uniform()  # (B,)
        error = torch.zeros_like(offset)
        for stratum in range(EVALUATED_TIMESTEPS):
            position = (stratum + offset) / EVALUATED_TIMESTEPS  # (B,), in [0, 1)
            t = 1 + (position * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)
            error += self._squared_error(batch, t)
        return {"loss": error / EVALUATED_TIMESTEPS}

    @torch.no_grad()
    def sample(
        self,
        random: RowRandom,
        *,
        solver: Literal["ddpm", "ddim"] | None = None,
        steps: PositiveInt | None = None,
        eta: Probability | None = None,
    ) -> Tensor:
        """`solver` and `steps` are by default the model's own; `eta` is the noise of ddim, 0 by default."""
        solver = solver or self.solver
        if solver == "ddpm" and eta is not None:
            raise ValueError(f"eta={eta} belongs to solver=ddim: solver=ddpm has its own noise, that of eta=1")
        steps = steps or self.sampling_steps
        noise = random.normal(*self.spec.shape)
        if solver == "ddpm":
            return ancestral(self._denoise, noise, self.alpha_bar, steps=steps, random=random)
        return ddim(self._denoise, noise, self.alpha_bar, steps=steps, random=random, eta=eta or 0.0)

    def _squared_error(self, batch: Batch, t: Tensor) -> Tensor:
        """(B,) mean squared error of the network at timesteps `t` (B,), on fresh noise."""
        x0 = batch[self.spec.key]
        eps = batch.random.normal(*self.spec.shape)
        alpha, sigma = self._rates(t)
        predicted = self._predict(alpha * x0 + sigma * eps, t)
        target = prediction_target(self.objective, x0, eps, alpha, sigma)
        return (predicted - target).square().flatten(1).mean(1)

    def _denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The estimate of x_0 that the samplers ask for, within the range of the data."""
        times = torch.full((len(x_t),), t, device=x_t.device)
        x0 = prediction_to_x0(self.objective, self._predict(x_t, times), x_t, *self._rates(times))
        return x0 if self.spec.value_range is None else x0.clamp(*self.spec.value_range)

    def _predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's output in float32; it is told the time as if T were 1000, whatever T is."""
        return self.network(x_t, t * (1000 / self.num_timesteps)).float()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t, to be multiplied with (B, *shape)."""
        shape = (-1,) + (1,) * len(self.spec.shape)
        return self.alpha[t].view(shape), self.sigma[t].view(shape)
