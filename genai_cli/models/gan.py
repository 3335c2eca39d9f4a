"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661). `genai train model=gan dataset=mnist`

The discriminator learns to tell data from fakes, the generator to make fakes that it takes for data (Algorithm 1, with
one step of the discriminator for each of the generator, if `critic_steps` does not say otherwise).
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.game import Fakes, Game
from genai_cli.nn.linear import FastLinear
from genai_cli.nn.mlp import mlp
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import tanh_to_range
from genai_cli.nn.regularizers import spectrally_normalise
from genai_cli.rules import PositiveFloat, PositiveInt


class GAN(GenerativeModel):
    """Two perceptrons in a game: generator latent_dim -> width -> 2 width -> data, discriminator the same backwards.

    `generator=stochastic` adds noise to what the generator makes of z, of a size that it learns. Losses, regularisers
    and augmentations are those of `nn/game.py`.
    """

    modalities = ("image", "points", "series", "audio")
    tiny = {"latent_dim": 4, "width": 8}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 100,
        width: PositiveInt = 256,
        loss: Literal["nonsaturating", "minimax", "lsgan", "wgan", "hinge", "relativistic"] = "nonsaturating",
        regularizer: Literal["none", "gp", "r1", "r2", "r1r2", "spectral", "lecam", "consistency"] = "none",
        regularizer_weight: PositiveFloat | None = None,
        regularizer_every: PositiveInt = 1,
        spectral: bool = False,
        critic_steps: PositiveInt = 1,
        fresh_fakes: bool = True,
        augment: Literal["none", "diffaug", "ada"] = "none",
        generator: Literal["deterministic", "stochastic"] = "deterministic",
    ):
        super().__init__(spec)
        self.latent_dim = latent_dim
        # No layer of the discriminator mixes rows: one pass over data and fakes is the same as two.
        self.game = Game(
            spec, loss=loss, regularizer=regularizer, regularizer_weight=regularizer_weight,
            regularizer_every=regularizer_every, spectral=spectral, critic_steps=critic_steps, augment=augment,
            joins_passes=True,
        )  # fmt: skip
        self.fakes = Fakes(self.sample, are_fresh=fresh_fakes, critic_steps=critic_steps)
        self.batches_per_step = critic_steps
        self.generator = Generator(spec, latent_dim, width, is_stochastic=generator == "stochastic")
        widths = [math.prod(spec.shape), 2 * width, width, 1]
        # FastLinear has no second derivative, which penalties on gradients need, and reads its weight twice.
        linear = nn.Linear if self.game.is_spectral or self.game.differentiates_twice else FastLinear
        self.discriminator = nn.Sequential(nn.Flatten(), mlp(widths, lambda: nn.LeakyReLU(0.2), linear=linear))
        if self.game.is_spectral:
            spectrally_normalise(self.discriminator)

    def train_step(self, step: Step) -> None:
        self.fakes.forget()
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        fake, real = self.fakes.judged(batch), batch[self.spec.key]
        return self.game.discriminator_loss(self.discriminator, real, fake, batch.random, regularize=regularize)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        fake = self.fakes.learned_on(batch)
        return self.game.generator_loss(self.discriminator, fake, batch[self.spec.key], batch.random)

    def sample(self, random: RowRandom) -> Tensor:
        return self.generator(random)

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        return self.generator.mean(latent)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()

    def evaluate(self, batch: Batch) -> Metrics:
        return self.game.evaluate(self.discriminator, batch[self.spec.key], self.generator(batch.random))


class Generator(nn.Module):
    """Draws z and maps it to data: G(z) = mu(z), or mu(z) + sigma(z) * eps with noise eps for every coordinate.

    Where the data are bounded, a tanh brings the sum into their range: no sample may leave it.
    """

    def __init__(self, spec: Spec, latent_dim: int, width: int, *, is_stochastic: bool):
        super().__init__()
        self.spec, self.latent_dim, self.is_stochastic = spec, latent_dim, is_stochastic
        self.data_dim = math.prod(spec.shape)
        self.network = mlp([latent_dim, width, 2 * width, self.data_dim * (1 + is_stochastic)])

    def forward(self, random: RowRandom) -> Tensor:
        """(B, *spec.shape), one example for each row of `random`."""
        output = self.network(random.normal(self.latent_dim))
        if self.is_stochastic:
            mu, rho = output.chunk(2, dim=1)  # each (B, D)
            # exp(rho - 3), were it not linear for large rho: starts at sigma = 0.05, nearly deterministic.
            output = mu + F.softplus(rho - 3) * random.normal(self.data_dim)
        return self._to_data(output)

    def mean(self, latent: Tensor) -> Tensor:
        """(B, latent_dim) to (B, *spec.shape), without the noise of a stochastic generator."""
        return self._to_data(self.network(latent)[:, : self.data_dim])

    def _to_data(self, output: Tensor) -> Tensor:
        return tanh_to_range(output, self.spec.value_range).unflatten(1, self.spec.shape)
