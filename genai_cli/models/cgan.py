"""Class-conditional GAN (Mirza & Osindero 2014, arXiv:1411.1784). `genai train model=cgan dataset=mnist`

Both players are told the class. How the discriminator uses it: `projection` (Miyato & Koyama 2018, arXiv:1802.05637),
`acgan` (an auxiliary classifier, Odena et al. 2017, arXiv:1610.09585), or `concat` (the class as further channels of
the image, the first form). How the generator does: `cbn` (conditional batch normalisation), `concat` (with z), `both`.
Two images of a class can be held apart (Mao et al. 2019, arXiv:1903.05628), so that z says more than a little.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.conditional import ConditionalBatchNorm, Projection
from genai_cli.nn.convnets import DISCRIMINATOR_NORMS, Generator, build_discriminator, initialise, split_side
from genai_cli.nn.game import Further, Game, check_norm
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.random import RowRandom
from genai_cli.nn.regularizers import likeness, spectrally_normalise
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class CGAN(GenerativeModel):
    """The networks of DCGAN, told the class of each image: sample i is of class i mod K, or all are of one `label`.

    Losses, regularisers and augmentations are those of `nn/game.py`.
    """

    modalities = ("image",)
    tiny = {"latent_dim": 4, "width": 4}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 100,
        width: PositiveInt = 64,
        conditioning: Literal["projection", "acgan", "concat"] = "projection",
        generator_conditioning: Literal["both", "cbn", "concat"] = "both",
        loss: Literal["nonsaturating", "minimax", "lsgan", "wgan", "hinge", "relativistic"] = "nonsaturating",
        regularizer: Literal["none", "gp", "r1", "r2", "r1r2", "spectral", "lecam", "consistency"] = "none",
        regularizer_weight: PositiveFloat | None = None,
        regularizer_every: PositiveInt = 1,
        spectral: bool = False,
        critic_steps: PositiveInt = 1,
        augment: Literal["none", "diffaug", "ada"] = "none",
        discriminator_norm: Literal["auto", "batch", "layer", "none"] = "auto",
        diversity_weight: NonNegativeFloat = 0.0,
    ):
        super().__init__(spec)
        if not spec.classes:
            raise ValueError("model=cgan needs data with classes, and these have none: use model=dcgan")
        self.z_dim, self.num_classes, self.conditioning = latent_dim, len(spec.classes), conditioning
        self.latent_dim = latent_dim + self.num_classes  # of a code for `decode`, which says the class as well
        self.diversity_weight = diversity_weight
        self.joins_class_to_z = generator_conditioning in ("both", "concat")
        self.game = Game(
            spec, loss=loss, regularizer=regularizer, regularizer_weight=regularizer_weight,
            regularizer_every=regularizer_every, spectral=spectral, critic_steps=critic_steps, augment=augment,
        )  # fmt: skip
        self.batches_per_step = critic_steps
        base, num_stages = split_side(spec.shape)
        channels = [width * 2**stage for stage in range(num_stages)]  # from fine to coarse
        norm_layer = BatchNorm
        if generator_conditioning in ("both", "cbn"):
            norm_layer = partial(ConditionalBatchNorm, num_classes=self.num_classes)
        input_dim = latent_dim + self.num_classes * self.joins_class_to_z
        self.generator = Generator(spec, input_dim, base, channels[::-1], norm_layer)
        norm = check_norm(discriminator_norm, regularizer, is_spectral=self.game.is_spectral)
        self.discriminator = Discriminator(
            spec.shape[0], self.num_classes, base, channels, conditioning, DISCRIMINATOR_NORMS[norm]
        )
        self.apply(initialise)
        if self.game.is_spectral:
            spectrally_normalise(self.discriminator)

    def train_step(self, step: Step) -> None:
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        label = batch["label"]
        with torch.no_grad():
            fake = self.generate(batch.random.normal(self.z_dim), label)
        return self.game.discriminator_loss(
            partial(self.discriminator, label=label), batch["image"], fake, batch.random,
            regularize=regularize, further=self._classify(label),
        )  # fmt: skip

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        label = batch["label"]
        latent = batch.random.normal(self.z_dim)
        fake = self.generate(latent, label)
        judge = partial(self.discriminator, label=label)
        further = self._classify(label)
        loss, metrics = self.game.generator_loss(judge, fake, batch["image"], batch.random, further=further)
        if self.diversity_weight > 0:
            other = batch.random.normal(self.z_dim)
            metrics["likeness"] = likeness(fake, self.generate(other, label), latent, other)
            loss = loss + self.diversity_weight * metrics["likeness"]
        return loss, metrics

    def generate(self, latent: Tensor, label: Tensor) -> Tensor:
        """z (B, z_dim) and classes (B,), or shares of each class (B, K), to (B, C, H, W)."""
        if self.joins_class_to_z:
            shares = label if label.is_floating_point() else F.one_hot(label, self.num_classes).to(latent)
            latent = torch.cat([latent, shares], dim=1)
        return self.generator(latent, label)

    def sample(self, random: RowRandom, *, label: NonNegativeInt | None = None) -> Tensor:
        labels = sample_labels(random, self.num_classes, label)
        return self.generate(random.normal(self.z_dim), labels)

    def draw_latent(self, random: RowRandom) -> Tensor:
        """z and the class, one-hot."""
        z = random.normal(self.z_dim)
        return torch.cat([z, F.one_hot(sample_labels(random, self.num_classes), self.num_classes).to(z)], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        """Between two classes the generator is told shares of both."""
        return self.generate(*latent.split([self.z_dim, self.num_classes], dim=1))

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()

    def _classify(self, label: Tensor) -> Further | None:
        """L_C of the auxiliary classifier (Eq. 3 of its paper), which both players ascend."""
        if self.conditioning != "acgan":
            return None

        def further(real: Tensor | None, fake: Tensor) -> tuple[Tensor, Metrics]:
            metrics = {"fake_accuracy": (fake.argmax(1) == label).float().mean()}
            loss = F.cross_entropy(fake, label)
            return (loss if real is None else loss + F.cross_entropy(real, label)), metrics

        return further


class Discriminator(nn.Module):
    """Stages that halve the side, then a linear layer, with the class in one of three places."""

    def __init__(
        self,
        image_channels: int,
        num_classes: int,
        base: int,
        channels: list[int],
        conditioning: str,
        norm: Callable[[int], nn.Module] | None,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.takes_class_maps = conditioning == "concat"
        whole = build_discriminator(
            image_channels + num_classes * self.takes_class_maps, base, channels, norm=norm,
            outputs=1 + num_classes * (conditioning == "acgan"),
        )  # fmt: skip
        self.stages, self.head = whole[:-2], whole[-2:]
        self.projection = Projection(channels[-1], num_classes) if conditioning == "projection" else None

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) to (B, 1), or to (B, 1 + K) with the logits of an auxiliary classifier."""
        if self.takes_class_maps:
            maps = F.one_hot(label, self.num_classes).to(image)[:, :, None, None]
            image = torch.cat([image, maps.expand(-1, -1, *image.shape[2:])], dim=1)
        features = self.stages(image)  # (B, F, base, base)
        output = self.head(features)
        if self.projection is not None:
            output = output + self.projection(features.sum((2, 3)), label)
        return output
