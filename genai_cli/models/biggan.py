"""BigGAN (Brock et al. 2019, arXiv:1809.11096), at the size of small images. `genai train model=biggan dataset=mnist`

Residual networks with self-attention and spectral normalisation in both players, a class embedding that is shared by
all blocks, projection, the hinge loss, orthogonal regularisation, and truncation of z when sampling. As in its
BigGAN-deep, every block sees all of z beside the class, and so does the first layer. Not of the paper: two images of a
class are held apart (Mao et al. 2019), for in small batches z would else be ignored.
"""

from collections.abc import Iterable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.convnets import split_side
from genai_cli.nn.game import Game
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import tanh_to_range
from genai_cli.nn.regularizers import likeness, spectrally_normalise
from genai_cli.nn.resnet_gan import Discriminator, Generator
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class BigGAN(GenerativeModel):
    """Class-conditional residual GAN, for square images whose side is 4 or 7 times a power of two.

    `width` is the number of channels at the full side, doubled with every halving. Sample i is of class i mod K, or all
    are of one `label`; `truncation` keeps every coordinate of z within so many deviations, for quality over variety.
    """

    modalities = ("image",)
    tiny = {"latent_dim": 4, "width": 2, "class_dim": 4}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 64,
        class_dim: PositiveInt = 32,
        width: PositiveInt = 16,
        loss: Literal["nonsaturating", "minimax", "lsgan", "wgan", "hinge", "relativistic"] = "hinge",
        regularizer: Literal["none", "gp", "r1", "r2", "r1r2", "lecam", "consistency"] = "none",
        regularizer_weight: PositiveFloat | None = None,
        regularizer_every: PositiveInt = 1,
        spectral: bool = True,
        critic_steps: PositiveInt = 1,
        augment: Literal["none", "diffaug", "ada"] = "none",
        orthogonal_weight: NonNegativeFloat = 1e-4,
        diversity_weight: NonNegativeFloat = 0.3,
    ):
        super().__init__(spec)
        if not spec.classes:
            raise ValueError("model=biggan needs data with classes, and these have none: use model=r3gan or dcgan")
        self.z_dim, self.num_classes = latent_dim, len(spec.classes)
        self.latent_dim = class_dim + latent_dim  # of a code for `decode`: all that the generator is told
        self.orthogonal_weight, self.diversity_weight = orthogonal_weight, diversity_weight
        self.game = Game(
            spec, loss=loss, regularizer=regularizer, regularizer_weight=regularizer_weight,
            regularizer_every=regularizer_every, spectral=spectral, critic_steps=critic_steps, augment=augment,
        )  # fmt: skip
        self.batches_per_step = critic_steps
        base, num_stages = split_side(spec.shape)
        channels = [width * 2**stage for stage in range(num_stages + 1)]  # from fine to coarse
        self.classes = nn.Embedding(self.num_classes, class_dim)
        self.generator = Generator(spec.shape[0], class_dim + latent_dim, base, channels[::-1])
        self.discriminator = Discriminator(spec.shape[0], channels[1:], self.num_classes)
        self.apply(orthogonal)
        nn.init.normal_(self.classes.weight)  # each of its numbers as loud as one of z
        self.to(memory_format=torch.channels_last)
        if spectral:
            spectrally_normalise(self.generator)
            spectrally_normalise(self.discriminator)

    def train_step(self, step: Step) -> None:
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        label = batch["label"]
        with torch.no_grad():
            fake = self.generate(batch.random.normal(self.z_dim), label)
        judge = partial(self.judge, label=label)
        return self.game.discriminator_loss(judge, batch["image"], fake, batch.random, regularize=regularize)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        label = batch["label"]
        latent = batch.random.normal(self.z_dim)
        fake = self.generate(latent, label)
        loss, metrics = self.game.generator_loss(partial(self.judge, label=label), fake, batch["image"], batch.random)
        if self.orthogonal_weight > 0:
            metrics["overlap"] = overlap(self.generator)
            loss = loss + self.orthogonal_weight * metrics["overlap"]
        if self.diversity_weight > 0:
            other = batch.random.normal(self.z_dim)
            metrics["likeness"] = likeness(fake, self.generate(other, label), latent, other)
            loss = loss + self.diversity_weight * metrics["likeness"]
        return loss, metrics

    def judge(self, images: Tensor, label: Tensor) -> Tensor:
        """Logits (B, 1) of images and their classes (B,)."""
        return self.discriminator(images, label)

    def generate(self, latent: Tensor, label: Tensor) -> Tensor:
        """z (B, z_dim) and classes (B,) to (B, C, H, W)."""
        return self.decode(torch.cat([self.classes(label), latent], dim=1))

    def sample(
        self, random: RowRandom, *, label: NonNegativeInt | None = None, truncation: PositiveFloat | None = None
    ) -> Tensor:
        labels = sample_labels(random, self.num_classes, label)
        latent = random.normal(self.z_dim) if truncation is None else random.truncated_normal(truncation, self.z_dim)
        return self.generate(latent, labels)

    def draw_latent(self, random: RowRandom) -> Tensor:
        """The embedding of the class, and z."""
        labels = sample_labels(random, self.num_classes)
        return torch.cat([self.classes(labels), random.normal(self.z_dim)], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        """Between two classes as between two z: the embedding of a class is a vector as any (Section 4, Figure 8)."""
        return tanh_to_range(self.generator(latent), self.spec.value_range)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.ema_parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return [*self.classes.parameters(), *self.generator.parameters()]


def overlap(network: nn.Module) -> Tensor:
    """sum ||W W^T o (1 - I)||^2 over all layers (Eq. 3): how far filters are from orthogonal."""
    total = torch.zeros((), device=next(network.parameters()).device)
    for name, weight in network.named_parameters():
        if name.endswith(("weight", "weight.original")) and weight.dim() > 1:  # no scale of a normalisation, no adapter
            filters = weight.flatten(1)  # (out, in x height x width)
            # ||W W^T|| = ||W^T W||, of which the smaller is quickly made; the diagonal is of squared lengths.
            small = filters.t() @ filters if filters.shape[1] < filters.shape[0] else filters @ filters.t()
            total = total + small.square().sum() - filters.square().sum(1).square().sum()
    return total


def orthogonal(module: nn.Module) -> None:
    """Every weight begins orthogonal (Section 3)."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.orthogonal_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
