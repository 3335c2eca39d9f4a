"""Image from image by a conditional GAN (Isola et al. 2017, arXiv:1611.07004).

`genai train model=pix2pix dataset=edges`, `genai sample run=latest given=FOLDER`: a U-Net translates the source, a
discriminator judges source and image together, patch by patch, and an L1 term holds the translation near the truth.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.game import Game
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import to_unit
from genai_cli.nn.regularizers import spectrally_normalise
from genai_cli.nn.rows import side_by_side, with_channels
from genai_cli.nn.translation import NORMS, TranslationUNet, initialise, patch_discriminator
from genai_cli.rules import Fraction, NonNegativeFloat, PositiveInt
from genai_cli.samplers.keep import given_rows


class Pix2Pix(GenerativeModel):
    """A U-Net from source to image and a PatchGAN that judges the pair.

    The noise z is dropout, as in the paper: two samples of one source differ where the source leaves it open. Losses
    and augmentations are those of `nn/game.py`.
    """

    modalities = ("image",)
    translates = "pairs"
    tiny = {"width": 4, "levels": 2, "patch": 16}
    monitor = "l1"
    figures = {
        "l1": "mean |translation - truth|, of pixels in [0, 1]",
        "squared_error": "mean squared error, of pixels in [0, 1]",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 64,
        levels: PositiveInt = 5,
        dropout: Fraction = 0.5,
        patch: Literal[1, 16, 34, 70, 142, 286] = 70,
        norm: Literal["instance", "batch"] = "instance",
        l1_weight: NonNegativeFloat = 100.0,
        loss: Literal["nonsaturating", "lsgan", "hinge"] = "nonsaturating",
        regularizer: Literal["none", "spectral"] = "none",
        augment: Literal["none", "diffaug"] = "none",
    ):
        super().__init__(spec)
        channels, source_channels = spec.shape[0], _check(spec).shape[0]
        self.l1_weight = l1_weight
        # The paper halves the discriminator's loss to slow it down, which Adam's steps do not take note of.
        self.game = Game(spec, loss=loss, regularizer=regularizer, augment=augment)
        self.generator = TranslationUNet(
            source_channels, channels, width=width, levels=levels, norm=NORMS[norm], dropout=dropout,
            value_range=spec.value_range,
        )  # fmt: skip
        self.discriminator = patch_discriminator(
            source_channels + channels, spec.shape, width=width, patch=patch,
            norm=None if regularizer == "spectral" else NORMS[norm],
        )  # fmt: skip
        self.apply(initialise)
        if regularizer == "spectral":
            spectrally_normalise(self.discriminator)

    def train_step(self, step: Step) -> None:
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        source, image = batch["source"], batch["image"]
        with torch.no_grad():
            fake = self.generator(source, batch.random)
        real, fake = torch.cat([source, image], 1), torch.cat([source, fake], 1)  # (B, C_s + C, H, W)
        return self.game.discriminator_loss(self.discriminator, real, fake, batch.random, regularize=regularize)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Eq. 4: the game's loss and lambda E ||y - G(x, z)||_1, the mean over pixels in the range of the data."""
        source, image = batch["source"], batch["image"]
        translated = self.generator(source, batch.random)
        real, fake = torch.cat([source, image], 1), torch.cat([source, translated], 1)
        adversarial, metrics = self.game.generator_loss(self.discriminator, fake, real, batch.random)
        distance = (translated - image).abs().mean()
        return adversarial + self.l1_weight * distance, metrics | {"adversarial": adversarial, "l1": distance}

    def sample(self, random: RowRandom, *, given: Tensor | None = None) -> Tensor:
        """Sample i is a translation of image i mod N of `given` (N, C_s, H, W)."""
        if given is None:
            raise ValueError("it translates images: say which, given=FOLDER")
        return self.generator(given_rows(given, random), random)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()

    def evaluate(self, batch: Batch) -> Metrics:
        """How far a translation of each source is from the image that belongs to it."""
        difference = self._difference(self.generator(batch["source"], batch.random), batch["image"])
        return {"l1": difference.abs().mean(1), "squared_error": difference.square().mean(1)}

    def statistics(self, batch: Batch) -> dict[str, float]:
        """The mean signal-to-noise ratio in decibels, and the distance to the truth of the untouched source."""
        difference = self._difference(self.generator(batch["source"], batch.random), batch["image"])
        untouched = self._difference(with_channels(batch["source"], self.spec.shape[0]), batch["image"])
        psnr = -10 * difference.square().mean(1).clamp(min=1e-10).log10()  # (B,): peak 1
        return {"psnr": psnr.mean().item(), "l1_of_source": untouched.abs().mean().item()}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Source, translation and truth beside each other."""
        source = batch["source"]
        translated = self.generator(source, batch.random)
        return {"translations": side_by_side(source, translated, batch["image"], channels=self.spec.shape[0])}

    def _difference(self, translated: Tensor, image: Tensor) -> Tensor:
        """(B, D), of pixels in [0, 1]."""
        low_high = self.spec.value_range
        return (to_unit(translated, low_high) - to_unit(image, low_high)).flatten(1)


def _check(spec: Spec) -> Spec:
    """The spec of the sources. Raises ValueError where there are none that belong to the images."""
    if spec.source is None or not spec.is_paired:
        raise ValueError(
            "it learns from pairs, and in these data no source belongs to an image: use dataset=paired, edges or grey, "
            "or model=cyclegan, which needs no pairs"
        )
    if spec.source.modality != "image" or spec.source.shape[1:] != spec.shape[1:]:
        raise ValueError(f"source and image must be of one size, not {spec.source.shape[1:]} and {spec.shape[1:]}")
    return spec.source
