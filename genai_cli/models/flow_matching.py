"""Flow matching (Lipman et al. 2022, arXiv:2210.02747): learn the velocity of straight lines from noise to data.

`genai train model=flow_matching dataset=mnist`, then `genai sample run=latest steps=20`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.assignment import linear_assignment
from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import has_many_ranks
from genai_cli.rules import FolderName, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Probability
from genai_cli.samplers.editing import draw
from genai_cli.samplers.guidance import conditioned
from genai_cli.samplers.likelihood import negative_log_likelihood
from genai_cli.samplers.pairs import Pairs, straightness
from genai_cli.samplers.schedules import flow_sigmas, karras_sigmas
from genai_cli.samplers.solvers import count_steps

EVALUATED_TIMES = 4  # of each held-out example
NUM_PAIRS = 10_000  # that a teacher makes
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # where samplers start (t = 0.988, all but noise) and where `karras` ends


class FlowMatching(GenerativeModel):
    """A velocity field along x_t = (1 - t) x_0 + t eps, the optimal transport path (Eq. 22 with sigma_min = 0).

    Time runs from 0, the data, to 1, the noise; the paper's runs backwards. `time=logit_normal` trains more in the
    middle of the path (Esser et al. 2024, arXiv:2403.03206). `coupling=minibatch_ot` pairs the noise of a micro-batch
    with its data so that the squares of their distances sum to the least (Tong et al. 2023, arXiv:2302.00482), which
    straightens the paths; it needs all rows of a batch, so it is for one process, and has no classes.
    `teacher`, the run of a trained flow, makes this its rectified flow (Liu et al. 2022, arXiv:2209.03003): it learns
    from `pairs` (null: 10,000) of noise and what the teacher makes of it, beginning with the teacher's weights where
    they fit. `condition=label` is as in `ddpm`.
    """

    modalities = ("image", "points", "series", "latents")
    figures = {
        "nll": "nats, exact -log p(x) of the probability flow but for nll_step_error",
        "nll_step_error": "nats, what half the steps of the flow would change",
        "straightness": "mean square of velocity - mean velocity along a path, a coordinate; 0: one step is exact",
    }
    monitor = "loss"
    tiny = {"width": 8, "sampling_steps": 3}
    rules = {
        "width % 4 == 0": "width must be divisible by 4, the channels of a normalisation group",
        "not heads or width * 2 ** (levels - 1) % heads == 0": "heads must divide width * 2 ** (levels - 1), "
        "the channels of the lowest resolution",
        "backbone != 'dit' or heads != 0": "a transformer needs heads of attention",
        "condition == 'label' or label_dropout == 0.1": "label_dropout belongs to condition=label",
        "condition != 'label' or coupling == 'independent'": "coupling=minibatch_ot would let the noise tell the "
        "class, which sampling cannot know: use coupling=independent with condition=label",
        "teacher is None or coupling == 'independent'": "a teacher pairs noise with data: use coupling=independent",
        "pairs is None or teacher is not None": "pairs are made by a teacher: name its run, teacher=DIR",
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
        time: Literal["uniform", "logit_normal"] = "uniform",
        coupling: Literal["independent", "minibatch_ot"] = "independent",
        teacher: FolderName | None = None,
        pairs: PositiveInt | None = None,
        solver: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"] = "heun",
        sampling_steps: PositiveInt = 25,
    ):
        super().__init__(spec)
        if coupling == "minibatch_ot" and has_many_ranks():
            raise ValueError("model.coupling=minibatch_ot pairs the rows of a whole batch: train it in one process")
        self.time, self.coupling = time, coupling
        self.is_rectified, self.num_pairs = teacher is not None, pairs or NUM_PAIRS
        self.pairs: Pairs | None = None  # there in training, where a teacher has made them
        if self.is_rectified:
            self.monitor = None  # independent noise, of which there is a held-out loss, is not what it learns from
        self.solver, self.sampling_steps = solver, sampling_steps
        self.network = Denoiser(
            spec, backbone=backbone, width=width, levels=levels, depth=depth, heads=heads, patch=patch,
            dropout=dropout, condition=condition, label_dropout=label_dropout,
        )  # fmt: skip

    def learn_from(self, teacher: GenerativeModel) -> None:
        """Make the pairs, with the teacher's own solver and steps."""
        if getattr(teacher, "solver", "ddpm") == "ddpm":
            raise ValueError("has no deterministic solver: a teacher is a run of flow_matching, edm or ddpm with one")
        if teacher.network.num_classes != self.network.num_classes:
            told = "label" if teacher.network.num_classes else "null"
            raise ValueError(f"was trained with model.condition={told}: its pairs need the same here")
        device = next(self.parameters()).device
        self.pairs = Pairs(teacher.sample, self.num_pairs, device)
        weights, own = teacher.state_dict(), self.state_dict()
        if isinstance(teacher, FlowMatching) and {key: value.shape for key, value in weights.items()} == {
            key: value.shape for key, value in own.items()
        }:
            self.load_state_dict(weights)

    def shard_units(self) -> list[nn.Module]:
        return self.network.shard_units()

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        t = batch.random.normal().sigmoid() if self.time == "logit_normal" else batch.random.uniform()  # (B,)
        if self.pairs is not None:
            x0, eps, index = self.pairs.draw(batch.random)
            label = index % max(1, self.network.num_classes)  # sample i is of class i mod K (nn/labels.py)
            return self._squared_error(Batch({self.spec.key: x0, "label": label}, batch.random), eps, t).mean(), {}
        eps = batch.random.normal(*self.spec.shape)
        if self.coupling == "minibatch_ot":
            eps = nearest_noise(batch[self.spec.key], eps)
        return self._squared_error(batch, eps, t).mean(), {}

    def evaluate(self, batch: Batch, *, straightness_steps: PositiveInt | None = None) -> Metrics:
        """The loss at times spread evenly over [0, 1), with independent noise; the likelihood of points.

        `straightness_steps` measures how straight the paths from as many examples' noise are, in so many steps.
        """
        metrics = {} if self.is_rectified else {"loss": self._held_out_loss(batch)}
        if straightness_steps is not None:
            eps, label = batch.random.normal(*self.spec.shape), self.network.label_of(batch)
            metrics["straightness"] = straightness(
                lambda x, t: self._velocity(x, torch.full((len(x),), t, device=x.device), label), eps,
                straightness_steps,
            )  # fmt: skip
        return {**metrics, **self._likelihood(batch)}

    def _held_out_loss(self, batch: Batch) -> Tensor:
        """(B,), one time in each stratum."""
        offset = batch.random.uniform()  # (B,)
        error = torch.zeros_like(offset)
        for stratum in range(EVALUATED_TIMES):
            eps = batch.random.normal(*self.spec.shape)
            error += self._squared_error(batch, eps, (stratum + offset) / EVALUATED_TIMES)
        return error / EVALUATED_TIMES

    @torch.no_grad()
    def sample(
        self,
        random: RowRandom,
        *,
        solver: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"] | None = None,
        steps: PositiveInt | None = None,
        evaluations: PositiveInt | None = None,
        spacing: Literal["uniform", "karras"] = "uniform",
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
        """`solver` and `steps` are by default the model's own; `spacing=uniform` has steps of equal time. `evaluations`
        of the network may be given for `steps`."""
        denoise = conditioned(
            self.denoise, self.network, random, value_range=self.spec.value_range,
            label=label, guidance=guidance, guidance_interval=guidance_interval, guide=guide,
        )  # fmt: skip
        chosen = solver or self.solver
        is_completed = given is not None and strength is None
        count = count_steps(
            chosen, self.sampling_steps, steps=steps, evaluations=evaluations, is_completed=is_completed
        )
        sigmas = flow_sigmas(count, SIGMA_MAX) if spacing == "uniform" else karras_sigmas(count, SIGMA_MIN, SIGMA_MAX)
        return draw(
            solver, self.solver, denoise, sigmas, random, self.spec.shape, eta=eta, churn=churn,
            given=given, keep=keep, strength=strength, resample=resample,
        )  # fmt: skip

    def denoise(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        """The estimate of x_0 from x = x_0 + sigma eps, the samplers' contract: x_t is (1 - t) x, sigma t / (1 - t)."""
        t = sigma / (1 + sigma)
        x_t = (1 - t) * x
        return x_t - t * self._velocity(x_t, torch.full((len(x),), t, device=x.device), label)

    def _likelihood(self, batch: Batch) -> Metrics:
        """`nll` in nats of points, by the probability flow; of images it would take minutes a thousand."""
        if self.spec.modality != "points":
            return {}
        label = self.network.label_of(batch)
        return negative_log_likelihood(
            lambda x, sigma: self.denoise(x, sigma, label), batch[self.spec.key], batch.random,
            sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX,
        )  # fmt: skip

    def _squared_error(self, batch: Batch, eps: Tensor, t: Tensor) -> Tensor:
        """(B,) mean squared error of the velocity at times `t` (B,) (Eq. 23)."""
        x0 = batch[self.spec.key]
        label = self.network.label_of(batch)
        x_t = x0.lerp(eps, t.view(-1, *(1 for _ in self.spec.shape)))
        return (self._velocity(x_t, t, label) - (eps - x0)).square().flatten(1).mean(1)

    def _velocity(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """dx_t / dt, (B, *shape)."""
        return self.network(x_t, 1000 * t, label=label)


def nearest_noise(x0: Tensor, eps: Tensor) -> Tensor:
    """The rows of `eps` (B, ...) in the order that brings each to the `x0` it is paired with in optimal transport."""
    cost = torch.cdist(x0.flatten(1).double(), eps.flatten(1).double()).square()  # (B, B)
    return eps[linear_assignment(cost).to(eps.device)]
