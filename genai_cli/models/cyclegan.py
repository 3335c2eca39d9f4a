"""Translation between two domains without pairs (Zhu et al. 2017, arXiv:1703.10593).

`genai train model=cyclegan dataset=edges`, `genai sample run=latest direction=b_to_a`: two generators, each judged by a
discriminator of its own domain, must undo each other. No loss looks at which source stands beside which image.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.game import Game
from genai_cli.nn.history import History
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import to_unit
from genai_cli.nn.regularizers import spectrally_normalise
from genai_cli.nn.rows import side_by_side
from genai_cli.nn.translation import NORMS, ResidualTranslator, initialise, patch_discriminator
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveInt
from genai_cli.samplers.keep import given_rows

# The paper's least-squares loss has no factor 1/2, that of nn/adversarial.py has: its weight beside that of the cycle.
ADVERSARIAL_WEIGHTS = {"lsgan": 2.0}


class CycleGAN(GenerativeModel):
    """G: A -> B and F: B -> A, where A are the sources and B the images, and a PatchGAN for each domain.

    `direction` says which way samples go. The discriminators see fakes of up to `history` earlier ones (Section 4).
    """

    modalities = ("image",)
    translates = "domains"
    tiny = {"width": 3, "depth": 1, "patch": 16, "history": 5}
    figures = {
        "cycle_a": "mean |F(G(a)) - a|, of pixels in [0, 1]",
        "cycle_b": "mean |G(F(b)) - b|, of pixels in [0, 1]",
        "l1_a_to_b": "mean |G(a) - truth|, of pixels in [0, 1]",
        "l1_b_to_a": "mean |F(b) - truth|, of pixels in [0, 1]",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 9,
        patch: Literal[1, 16, 34, 70, 142, 286] = 70,
        norm: Literal["instance", "batch"] = "instance",
        cycle_weight: NonNegativeFloat = 10.0,
        identity_weight: NonNegativeFloat = 0.0,
        history: NonNegativeInt = 50,
        loss: Literal["nonsaturating", "lsgan", "hinge"] = "lsgan",
        regularizer: Literal["none", "spectral"] = "none",
        augment: Literal["none", "diffaug"] = "none",
    ):
        super().__init__(spec)
        of_a = _check(spec, identity_weight)
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.adversarial_weight = ADVERSARIAL_WEIGHTS.get(loss, 1.0)
        self.game = Game(spec, loss=loss, regularizer=regularizer, augment=augment)
        translator = {"width": width, "depth": depth, "norm": NORMS[norm]}
        self.a_to_b = ResidualTranslator(of_a.shape[0], spec.shape[0], **translator, value_range=spec.value_range)
        self.b_to_a = ResidualTranslator(spec.shape[0], of_a.shape[0], **translator, value_range=of_a.value_range)
        judge = {"width": width, "patch": patch, "norm": None if regularizer == "spectral" else NORMS[norm]}
        self.judge_a = patch_discriminator(of_a.shape[0], spec.shape, **judge)
        self.judge_b = patch_discriminator(spec.shape[0], spec.shape, **judge)
        self.history_a, self.history_b = History(history, of_a.shape), History(history, spec.shape)
        self.apply(initialise)
        if regularizer == "spectral":
            spectrally_normalise(self.judge_a)
            spectrally_normalise(self.judge_b)

    def train_step(self, step: Step) -> None:
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        """Of both discriminators, each on data of its domain and on fakes of now and earlier."""
        a, b = batch["source"], batch["image"]
        with torch.no_grad():
            fake_a, fake_b = self.b_to_a(b), self.a_to_b(a)
        if self.training:
            fake_a, fake_b = self.history_a(fake_a, batch.random), self.history_b(fake_b, batch.random)
        loss_a, metrics_a = self.game.discriminator_loss(self.judge_a, a, fake_a, batch.random, regularize=regularize)
        loss_b, metrics_b = self.game.discriminator_loss(self.judge_b, b, fake_b, batch.random, regularize=regularize)
        return loss_a + loss_b, {key: (metrics_a[key] + metrics_b[key]) / 2 for key in metrics_a}

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Eq. 3: both games' losses, lambda (||F(G(a)) - a||_1 + ||G(F(b)) - b||_1), and identities (Section 5.2)."""
        a, b = batch["source"], batch["image"]
        fake_a, fake_b = self.b_to_a(b), self.a_to_b(a)
        adversarial_a, _ = self.game.generator_loss(self.judge_a, fake_a, a, batch.random)
        adversarial_b, _ = self.game.generator_loss(self.judge_b, fake_b, b, batch.random)
        adversarial = adversarial_a + adversarial_b
        cycle = (self.b_to_a(fake_b) - a).abs().mean() + (self.a_to_b(fake_a) - b).abs().mean()
        loss = self.adversarial_weight * adversarial + self.cycle_weight * cycle
        metrics = {"adversarial": adversarial, "cycle": cycle}
        if self.identity_weight > 0:
            identity = (self.a_to_b(b) - b).abs().mean() + (self.b_to_a(a) - a).abs().mean()
            loss, metrics = loss + self.identity_weight * identity, metrics | {"identity": identity}
        return loss, metrics

    def sample(
        self,
        random: RowRandom,
        *,
        given: Tensor | None = None,
        direction: Literal["a_to_b", "b_to_a"] = "a_to_b",
    ) -> Tensor:
        """Sample i is the translation of image i mod N of `given` (N, C, H, W); nothing about it is random."""
        if given is None:
            raise ValueError("it translates images: say which, given=FOLDER")
        return self._translator(direction)(given_rows(given, random))

    def sides(self, **options: Any) -> tuple[str, str]:
        return ("image", "source") if options.get("direction") == "b_to_a" else ("source", "image")

    def columns(self, given: Tensor, samples: Tensor, **options: Any) -> list[Tensor]:
        """What was given, its translation, and the translation of that back."""
        back = "a_to_b" if options.get("direction") == "b_to_a" else "b_to_a"
        return [given, samples, self._translator(back)(samples)]

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        judges = chain(self.judge_a.parameters(), self.judge_b.parameters())
        return {"discriminator": judges, "generator": self.ema_parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return chain(self.a_to_b.parameters(), self.b_to_a.parameters())

    def evaluate(self, batch: Batch) -> Metrics:
        """How well the generators undo each other; where there are pairs, also how far they are from the truth."""
        a, b = batch["source"], batch["image"]
        fake_a, fake_b = self.b_to_a(b), self.a_to_b(a)
        figures = {
            "cycle_a": self._distance(self.b_to_a(fake_b), a, "source"),
            "cycle_b": self._distance(self.a_to_b(fake_a), b, "image"),
        }
        if self.spec.is_paired:
            figures["l1_a_to_b"] = self._distance(fake_b, b, "image")
            figures["l1_b_to_a"] = self._distance(fake_a, a, "source")
        return figures

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Of each direction: what is given, its translation, and that back again."""
        channels = self.spec.shape[0]
        found = {}
        for direction in ("a_to_b", "b_to_a"):
            given = batch[self.sides(direction=direction)[0]]
            translated = self._translator(direction)(given)
            found[direction] = side_by_side(*self.columns(given, translated, direction=direction), channels=channels)
        return found

    def _translator(self, direction: str) -> ResidualTranslator:
        return self.a_to_b if direction == "a_to_b" else self.b_to_a

    def _distance(self, x: Tensor, y: Tensor, side: str) -> Tensor:
        """(B,): mean absolute difference of pixels in [0, 1]."""
        value_range = self.spec.side(side).value_range
        return (to_unit(x, value_range) - to_unit(y, value_range)).abs().flatten(1).mean(1)


def _check(spec: Spec, identity_weight: float) -> Spec:
    """The spec of domain A. Raises ValueError for data that cannot be translated into each other."""
    source = spec.source
    if source is None:
        raise ValueError("it learns from two domains: use dataset=unpaired, paired, edges or grey")
    if source.modality != "image" or source.shape[1:] != spec.shape[1:]:
        raise ValueError(f"images of both domains must be of one size, not {source.shape[1:]} and {spec.shape[1:]}")
    if any(side % 4 or side < 16 for side in spec.shape[1:]):
        raise ValueError(
            f"this model halves images twice: their sides must be multiples of 4, 16 at least, not "
            f"{spec.shape[1]}x{spec.shape[2]}; set dataset.image_size"
        )
    if identity_weight > 0 and source.shape[0] != spec.shape[0]:
        raise ValueError(
            f"model.identity_weight={identity_weight:g} gives each generator images of its own domain, and one domain "
            f"has {source.shape[0]} channels, the other {spec.shape[0]}: set model.identity_weight=0"
        )
    return source
