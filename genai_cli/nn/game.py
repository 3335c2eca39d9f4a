"""The game that a generator and a discriminator play: the program of one step, and both losses with all options.

A model owns its networks and says how they make and judge examples; the loss, the regulariser, the augmentation and
the number of turns are the same for all of them, and are kept here with whatever state they need.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.nn.adversarial import LOSSES
from genai_cli.nn.augment import AUGMENTATIONS, AdaptiveAugment, translate
from genai_cli.nn.random import RowRandom
from genai_cli.nn.regularizers import Judge, LeCam, consistency, gradient_penalty, zero_centred_penalty

# The weight of each regulariser in the paper that it comes from. R1's gamma of 10 is for images of 256 x 256 pixels
# in batches of 64; by the rule of Karras et al. 2020 (arXiv:2006.06676), gamma = 0.0002 N / M for N pixels
# and batches of M, those of MNIST would want far less: 1 is between.
WEIGHTS = {"gp": 10.0, "r1": 1.0, "r2": 1.0, "r1r2": 1.0, "lecam": 0.1, "consistency": 10.0}
SECOND_DERIVATIVE = ("gp", "r1", "r2", "r1r2")  # of D: no BatchNorm, no FastLinear
FORBIDS_BATCH_NORM = (*SECOND_DERIVATIVE, "spectral")  # for spectral, a batch's 1 / std has no bound

Metrics = dict[str, Tensor]
Further = Callable[[Tensor | None, Tensor], tuple[Tensor, Metrics]]


class Game(nn.Module):
    """How two players learn. `spec` is of their data; raises ValueError for options that make no sense together.

    In the losses, `judge` is the discriminator as a function of examples alone, to logits (B, 1). Where it has further
    outputs (B, 1 + A), such as logits of classes, `further` turns those of data (None in the generator's turn) and of
    fakes, (B, A) each, into a term of the loss.
    """

    def __init__(
        self, spec: Spec, *, loss: str, regularizer: str = "none", regularizer_weight: float | None = None,
        regularizer_every: int = 1, spectral: bool = False, critic_steps: int = 1, augment: str = "none",
        joins_passes: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.is_spectral = spectral or regularizer == "spectral"  # the model's to obey, when its networks are built
        _check(spec, loss, regularizer, regularizer_weight, regularizer_every, self.is_spectral, augment)
        self.loss = LOSSES[loss]
        self.regularizer = regularizer
        self.differentiates_twice = regularizer in SECOND_DERIVATIVE
        self.weight = WEIGHTS.get(regularizer, 0.0) if regularizer_weight is None else regularizer_weight
        self.every = regularizer_every
        self.critic_steps = critic_steps
        self.augment = AUGMENTATIONS[augment]()
        self.lecam = LeCam() if regularizer == "lecam" else None
        self.joins_passes = joins_passes  # D takes data and fakes in one pass, which is faster where it mixes no rows

    def play(self, step: Any, discriminator_loss: Callable[..., Any], generator_loss: Callable[..., Any]) -> None:
        """One step: `critic_steps` of the discriminator, each on a batch of its own, then one of the generator.

        Algorithm 1 of Goodfellow et al. 2014. `step` is a `models.base.Step`; `discriminator_loss` takes a batch and
        the keyword `regularize`.
        """
        if isinstance(self.augment, AdaptiveAugment):
            self.augment.adapt(step.number)
        loss = partial(discriminator_loss, regularize=step.number % self.every == 0)
        for turn in range(self.critic_steps):
            step.minimize("discriminator", loss, batch=turn)
        step.minimize("generator", generator_loss)

    def discriminator_loss(
        self, judge: Judge, real: Tensor, fake: Tensor, random: RowRandom, *,
        regularize: bool = True, further: Further | None = None,
    ) -> tuple[Tensor, Metrics]:  # fmt: skip
        """The discriminator's loss on data and as many fakes, and what it thinks of them."""
        is_penalised = regularize and self.weight > 0
        # Gradient penalties are taken where the discriminator looks: at the augmented images.
        real, fake = self.augment(real, random), self.augment(fake, random)
        if is_penalised and self.regularizer in ("r1", "r1r2"):
            real = real.detach().requires_grad_()
        if is_penalised and self.regularizer in ("r2", "r1r2"):
            fake = fake.detach().requires_grad_()
        real_output, fake_output = self._judge_both(judge, real, fake)
        real_logits, fake_logits = logits_of(real_output), logits_of(fake_output)  # (B, 1) each
        loss, metrics = self.loss.discriminator(real_logits, fake_logits), self._opinions(real_logits, fake_logits)
        if further is not None:
            term, more = further(real_output[:, 1:], fake_output[:, 1:])
            loss, metrics = loss + term, metrics | more
        if self.training:
            self._observe(real_logits, fake_logits)
        if isinstance(self.augment, AdaptiveAugment):
            metrics["augment_probability"] = self.augment.p.clone()  # of this step
        if is_penalised:
            penalty = self._penalty(lambda x: logits_of(judge(x)), real, fake, real_logits, fake_logits, random)
            metrics["penalty"] = penalty
            # Weighted by the interval, so that its mean over steps is as without (Karras et al. 2020,
            # arXiv:1912.04958, Appendix B; there it has an optimizer step of its own, here it shares one).
            loss = loss + self.weight * self.every * penalty
        return loss, metrics

    def generator_loss(
        self, judge: Judge, fake: Tensor, real: Tensor, random: RowRandom, *, further: Further | None = None
    ) -> tuple[Tensor, Metrics]:
        """The generator's loss; of the data (B, ...) only a relativistic one takes note."""
        fake_output = judge(self.augment(fake, random))
        fake_logits = logits_of(fake_output)
        if self.loss.generator is not None:
            loss = self.loss.generator(fake_logits)
        else:
            loss = self.loss.discriminator(fake_logits, logits_of(judge(self.augment(real, random))))
        if further is None:
            return loss, {}
        term, metrics = further(None, fake_output[:, 1:])
        return loss + term, metrics

    def evaluate(self, judge: Judge, real: Tensor, fake: Tensor) -> Metrics:
        """What the discriminator thinks of unseen data and of fakes, (B,) each: no figure of merit.

        A "real" far below the one of training says that it has learned the training set by heart.
        """
        opinions = {"real": judge(real)[:, 0], "fake": judge(fake)[:, 0]}
        return {self._opinion_of(kind): self._as_opinion(logits) for kind, logits in opinions.items()}

    def _judge_both(self, judge: Judge, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        if self.joins_passes:
            real_output, fake_output = judge(torch.cat([real, fake])).chunk(2)
            return real_output, fake_output
        return judge(real), judge(fake)

    def _opinions(self, real_logits: Tensor, fake_logits: Tensor) -> Metrics:
        logits = {"real": real_logits, "fake": fake_logits}
        return {self._opinion_of(kind): self._as_opinion(value).mean() for kind, value in logits.items()}

    def _opinion_of(self, kind: str) -> str:
        return f"{kind}_probability" if self.loss.has_probabilities else f"{kind}_logit"

    def _as_opinion(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.loss.has_probabilities else logits

    def _observe(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        if self.lecam is not None:
            self.lecam.follow(real_logits, fake_logits)
        if isinstance(self.augment, AdaptiveAugment):
            self.augment.observe(real_logits - self.loss.undecided)

    def _penalty(
        self, judge: Judge, real: Tensor, fake: Tensor, real_logits: Tensor, fake_logits: Tensor, random: RowRandom
    ) -> Tensor:
        match self.regularizer:
            case "gp":
                return gradient_penalty(judge, real, fake, random)
            case "r1":
                return zero_centred_penalty(real_logits, real)
            case "r2":
                return zero_centred_penalty(fake_logits, fake)
            case "r1r2":
                return zero_centred_penalty(real_logits, real) + zero_centred_penalty(fake_logits, fake)
            case "consistency":
                return consistency(judge, real, real_logits, lambda images: _shift_at_random(images, random))
            case "lecam":
                return self.lecam(real_logits, fake_logits)
        raise AssertionError(self.regularizer)


class Fakes:
    """What the generator makes of a batch: judged by the discriminator, then what the generator learns on.

    With `are_fresh` the generator learns on others (Goodfellow et al. 2014, Algorithm 1). Else the two are the same,
    made once, as in most programs of such games: a forward pass less a step. No more is kept than the graph
    of one micro-batch; other fakes are made again from the same noise, with the same gradients.
    """

    def __init__(self, generate: Callable[[RowRandom], Tensor], *, are_fresh: bool, critic_steps: int):
        self.generate, self.are_fresh = generate, are_fresh
        self.are_kept = not are_fresh and critic_steps == 1
        self._kept: dict[tuple[int, ...], Tensor] = {}  # of the last micro-batch, by its place

    def judged(self, batch: Batch) -> Tensor:
        """(B, ...) for the discriminator, through which no gradient flows."""
        with torch.set_grad_enabled(self.are_kept):
            fake = self.generate(batch.random if self.are_fresh else batch.shared)
        if self.are_kept:
            self._kept = {batch.shared.place: fake}
        return fake.detach()

    def learned_on(self, batch: Batch) -> Tensor:
        """(B, ...) for the generator."""
        if self.are_fresh:
            return self.generate(batch.random)
        kept = self._kept.pop(batch.shared.place, None)
        return self.generate(batch.shared) if kept is None else kept

    def forget(self) -> None:
        """What a step that ended early has left."""
        self._kept.clear()


def logits_of(output: Tensor) -> Tensor:
    """The first column of what a discriminator says, (B, 1 + A) to (B, 1)."""
    return output if output.shape[1] == 1 else output[:, :1]


def _shift_at_random(images: Tensor, random: RowRandom) -> Tensor:
    """By up to two pixels. The paper also mirrors, which would make other digits and letters of some."""
    return translate(images, random.integers(5, 2) - 2)


def check_norm(norm: str, regularizer: str, *, is_spectral: bool = False) -> str:
    """The normalisation of a discriminator's layers: what was chosen, or for "auto" what the regulariser allows.

    A discriminator that is spectrally normalised has no other.

    Raises ValueError for batch normalisation with a regulariser of each example's own gradient (Gulrajani et al. 2017,
    Section 4) or of the slope of every layer.
    """
    is_spectral = is_spectral or regularizer == "spectral"
    if norm == "auto":
        return "none" if is_spectral else "layer" if regularizer in SECOND_DERIVATIVE else "batch"
    if norm == "batch" and (is_spectral or regularizer in SECOND_DERIVATIVE):
        option = f"regularizer={regularizer}" if regularizer in FORBIDS_BATCH_NORM else "spectral=true"
        raise ValueError(
            f"model.discriminator_norm=batch with model.{option} does not limit what it should: a "
            "batch normalisation mixes examples and scales without bound; use model.discriminator_norm=layer or none"
        )
    return norm


def _check(
    spec: Spec, loss: str, regularizer: str, regularizer_weight: float | None, regularizer_every: int,
    is_spectral: bool, augment: str,
) -> None:  # fmt: skip
    """Raises ValueError for what makes no sense, and for what would be accepted and ignored."""
    if loss == "wgan" and regularizer in ("none", "consistency") and not is_spectral:
        raise ValueError(
            f"model.loss=wgan with model.regularizer={regularizer} has no bound: nothing limits the critic's slope; "
            "use model.regularizer=gp (or r1, r2, r1r2, lecam), or spectral normalisation where the model has it"
        )
    if regularizer in ("none", "spectral"):
        for key, value, default in (
            ("regularizer_weight", regularizer_weight, None), ("regularizer_every", regularizer_every, 1)
        ):  # fmt: skip
            if value != default:
                remedy = "null" if default is None else default
                raise ValueError(
                    f"model.{key}={value} has no effect with model.regularizer={regularizer}, which is no term of the "
                    f"loss: set model.{key}={remedy}, or use model.regularizer=gp, r1, r2, r1r2, lecam or consistency"
                )
    if augment == "ada" and LOSSES[loss].undecided is None:
        decided = ", ".join(name for name, each in LOSSES.items() if each.undecided is not None)
        raise ValueError(
            f"model.augment=ada with model.loss={loss} has nothing to go by: it counts the data that D takes for data, "
            f"and in this loss no output of D means that; use model.loss={decided}, or model.augment=diffaug"
        )
    is_image = spec.modality == "image"
    if not is_image and augment != "none":
        raise ValueError(
            f"model.augment={augment} changes images, and these are {spec.modality}: use model.augment=none"
        )
    if not is_image and regularizer == "consistency":
        raise ValueError(
            f"model.regularizer=consistency shifts images, and these are {spec.modality}: use another, such as "
            "model.regularizer=r1"
        )
