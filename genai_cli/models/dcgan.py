"""Deep convolutional GAN (Radford et al. 2015, arXiv:1511.06434). `genai train model=dcgan dataset=mnist`

The networks are those of `nn/convnets.py`. With `loss=wgan regularizer=gp` it is the WGAN-GP of Gulrajani et al. 2017
(`model=wgan_gp`), with `loss=hinge regularizer=spectral` the SN-GAN of Miyato et al. 2018.
"""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.convnets import DISCRIMINATOR_NORMS, Generator, build_discriminator, initialise, split_side
from genai_cli.nn.game import Fakes, Game, check_norm
from genai_cli.nn.random import RowRandom
from genai_cli.nn.regularizers import spectrally_normalise
from genai_cli.rules import PositiveFloat, PositiveInt


class DCGAN(GenerativeModel):
    """A GAN of convolutions, for square images whose side is 4 or 7 times a power of two.

    `width` is the number of channels at half of the side, doubled with every further halving: the paper's model of
    64x64 pixels is `width=128`. Losses, regularisers and augmentations are those of `nn/game.py`.
    """

    modalities = ("image",)
    tiny = {"latent_dim": 4, "width": 6}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 100,
        width: PositiveInt = 64,
        loss: Literal["nonsaturating", "minimax", "lsgan", "wgan", "hinge", "relativistic"] = "nonsaturating",
        regularizer: Literal["none", "gp", "r1", "r2", "r1r2", "spectral", "lecam", "consistency"] = "none",
        regularizer_weight: PositiveFloat | None = None,
        regularizer_every: PositiveInt = 1,
        spectral: bool = False,
        critic_steps: PositiveInt = 1,
        fresh_fakes: bool = True,
        augment: Literal["none", "diffaug", "ada"] = "none",
        discriminator_norm: Literal["auto", "batch", "layer", "none"] = "auto",
    ):
        super().__init__(spec)
        self.latent_dim = latent_dim
        self.game = Game(
            spec, loss=loss, regularizer=regularizer, regularizer_weight=regularizer_weight,
            regularizer_every=regularizer_every, spectral=spectral, critic_steps=critic_steps, augment=augment,
        )  # fmt: skip
        self.fakes = Fakes(self.sample, are_fresh=fresh_fakes, critic_steps=critic_steps)
        self.batches_per_step = critic_steps
        norm = check_norm(discriminator_norm, regularizer, is_spectral=self.game.is_spectral)
        base, num_stages = split_side(spec.shape)
        channels = [width * 2**stage for stage in range(num_stages)]  # from fine to coarse
        self.generator = Generator(spec, latent_dim, base, channels[::-1])
        self.discriminator = build_discriminator(spec.shape[0], base, channels, norm=DISCRIMINATOR_NORMS[norm])
        self.apply(initialise)
        if self.game.is_spectral:
            spectrally_normalise(self.discriminator)

    def train_step(self, step: Step) -> None:
        self.fakes.forget()
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        fake, real = self.fakes.judged(batch), batch["image"]
        return self.game.discriminator_loss(self.discriminator, real, fake, batch.random, regularize=regularize)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        fake = self.fakes.learned_on(batch)
        return self.game.generator_loss(self.discriminator, fake, batch["image"], batch.random)

    def sample(self, random: RowRandom) -> Tensor:
        return self.decode(self.draw_latent(random))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        return self.generator(latent)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()
