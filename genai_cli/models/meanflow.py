"""MeanFlow (Geng et al. 2025, arXiv:2505.13447): learn the mean velocity of a stretch of flow, and jump it in one step.

`genai train model=meanflow dataset=mnist`, then `genai sample run=latest steps=1`.
"""

import warnings
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.random import RowRandom
from genai_cli.rules import FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.editing import check_editing
from genai_cli.samplers.keep import given_rows, known_part
from genai_cli.samplers.likelihood import negative_log_likelihood

EVALUATED_TIMES = 4  # of each held-out example
# Sinusoids of t that turn fast, as those of a thousand timesteps do, would make du / dt a thousand times as large as u.
TIME_SCALE = 10.0
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # between which the likelihood follows the flow


class MeanFlow(GenerativeModel):
    """The mean u(z_t, r, t) of the velocity from time r to time t, along z_t = (1 - t) x + t eps (Eq. 3).

    Then z_r = z_t - (t - r) u exactly, and data are one step from noise. Of the examples of a batch a share
    `stretch_share` learns u where r < t, by the MeanFlow identity (Eq. 6), the others the velocity itself, r = t.
    Both times are logistic of a normal with `time_mean` and `time_std`. `power` is that of the adaptive weight of each
    example (Eq. 22): 0 is the squared error, 1 nearly its logarithm. `condition=label` tells the network the class.
    """

    modalities = ("image", "points", "series", "latents")
    figures = {
        "velocity_loss": "squared error of the velocity, a part of what is trained, no likelihood",
        "nll": "nats, exact -log p(x) of the probability flow but for nll_step_error",
        "nll_step_error": "nats, what half the steps of the flow would change",
    }
    monitor = "velocity_loss"
    tiny = {"width": 8}
    rules = {
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
        stretch_share: Probability = 0.25,
        time_mean: FiniteFloat = -0.4,
        time_std: PositiveFloat = 1.0,
        power: NonNegativeFloat = 0.75,
        sampling_steps: PositiveInt = 1,
    ):
        super().__init__(spec)
        self.stretch_share, self.time_mean, self.time_std = stretch_share, time_mean, time_std
        self.power, self.sampling_steps = power, sampling_steps
        # No dropout: the derivative and the value must be of one function.
        self.network = Denoiser(
            spec, backbone=backbone, width=width, levels=levels, depth=depth, heads=heads, patch=patch,
            dropout=0.0, condition=condition, label_dropout=0.0, num_times=2,
        )  # fmt: skip

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Algorithm 1."""
        x, eps = batch[self.spec.key], batch.random.normal(*self.spec.shape)
        times = (self.time_mean + self.time_std * batch.random.normal(2)).sigmoid()  # (B, 2)
        is_stretch = batch.random.uniform() < self.stretch_share  # (B,)
        t = times.amax(1)
        r = torch.where(is_stretch, times.amin(1), t)
        label = self.network.label_of(batch)
        z, v = x.lerp(eps, self._to_shape(t)), eps - x  # each (B, *shape)
        target = self._target(z, v, r, t, label)
        error = (self.mean_velocity(z, r, t, label) - target).square().flatten(1).mean(1)  # (B,)
        weight = (error.detach() + 1e-3) ** -self.power
        return (weight * error).mean(), {"unweighted": error.mean()}

    def evaluate(self, batch: Batch) -> Metrics:
        """The error of the velocity, r = t, at times spread evenly over [0, 1); the likelihood of points."""
        x, label, offset = batch[self.spec.key], self.network.label_of(batch), batch.random.uniform()
        error = torch.zeros_like(offset)  # (B,)
        for stratum in range(EVALUATED_TIMES):
            t = (stratum + offset) / EVALUATED_TIMES
            eps = batch.random.normal(*self.spec.shape)
            velocity = self.mean_velocity(x.lerp(eps, self._to_shape(t)), t, t, label)
            error += (velocity - (eps - x)).square().flatten(1).mean(1)
        metrics = {"velocity_loss": error / EVALUATED_TIMES}
        if self.spec.modality != "points":
            return metrics
        likelihood = negative_log_likelihood(
            lambda x, sigma: self.denoise(x, sigma, label), x, batch.random, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX
        )
        return {**metrics, **likelihood}

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
        """`steps` jumps of equal time, one evaluation each; by default the model's own number (Algorithm 2).

        With `strength`, they lead from `given` images with so much noise, at the time t = strength; else what of these
        is kept is put back before each jump, under fresh noise of its time.
        """
        check_editing(self.spec.shape, given=given, keep=keep, strength=strength)
        if label is not None and not self.network.num_classes:
            raise ValueError(f"label={label} needs a model that was trained with model.condition=label")
        labels = sample_labels(random, self.network.num_classes, label) if self.network.num_classes else None
        rows, known = None if given is None else given_rows(given, random), None
        if rows is not None and strength is None:
            rows, known = known_part(rows, keep, self.spec.shape)
        start = 1.0 if strength is None else strength
        z = random.normal(*self.spec.shape)
        z = z if strength is None else rows.lerp(z, start)
        steps = steps or self.sampling_steps
        for step in range(steps):
            now, then = start * (1 - step / steps), start * (1 - (step + 1) / steps)
            if known is not None:
                z = torch.where(known, rows.lerp(random.normal(*self.spec.shape), now), z)
            t, r = (torch.full((len(z),), time, device=z.device) for time in (now, then))
            z = z - (now - then) * self.mean_velocity(z, r, t, labels)
        z = z if known is None else torch.where(known, rows, z)
        return z if self.spec.value_range is None else z.clamp(*self.spec.value_range)

    def mean_velocity(self, z: Tensor, r: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """u(z_t, r, t), (B, *shape); the network is told t and t - r (table 1c)."""
        return self.network(z, TIME_SCALE * t, TIME_SCALE * (t - r), label=label)

    def denoise(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        """The samplers' contract, by the velocity: an estimate of x_0 from x = x_0 + sigma eps = z_t / (1 - t)."""
        time = sigma / (1 + sigma)
        t = torch.full((len(x),), time, device=x.device)
        z = (1 - time) * x
        return z - time * self.mean_velocity(z, t, t, label)

    @torch.no_grad()
    def _target(self, z: Tensor, v: Tensor, r: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """v - (t - r) du / dt along the path (Eqs. 6 and 8); the derivative is computed where r < t alone."""
        (rows,) = torch.nonzero(r < t, as_tuple=True)
        if len(rows) == 0:
            return v
        labels = None if label is None else label[rows]
        ends = (z[rows], r[rows], t[rows])
        directions = (v[rows], torch.zeros_like(r[rows]), torch.ones_like(t[rows]))
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():  # fused attention has no forward derivative
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of a deprecated decorator that it uses
            _, derivative = torch.func.jvp(lambda z, r, t: self.mean_velocity(z, r, t, labels), ends, directions)
        return v.index_add(0, rows, -self._to_shape(t - r)[rows] * derivative)

    def _to_shape(self, x: Tensor) -> Tensor:
        return x.view(-1, *(1 for _ in self.spec.shape))
