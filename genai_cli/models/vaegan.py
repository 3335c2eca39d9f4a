"""VAE/GAN: errors measured by a discriminator's features (Larsen et al. 2016, arXiv:1512.09300).

`genai train model=vaegan dataset=mnist`. Pixels are compared as the discriminator sees them, Dis_l(x) against
Dis_l(x~), which forgives a shift of a pixel and not a blur; three players, as in Algorithm 1.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.adversarial import discriminator_loss, nonsaturating
from genai_cli.nn.coders import build_decoder, build_encoder
from genai_cli.nn.conv import halving
from genai_cli.nn.gaussians import kl_to_standard_normal, reparameterise
from genai_cli.nn.latents import CodeMemory
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit, tanh_to_range, to_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeFloat, PositiveInt


class VAEGAN(GenerativeModel):
    """A convolutional VAE and a discriminator of reconstructions and samples.

    `gamma` weighs the feature error against the game in the decoder's objective, `beta` the KL term in the encoder's.
    """

    modalities = ("image",)
    monitor = "squared_error"
    tiny = {"width": 4, "latent_dim": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 32,
        width: PositiveInt = 32,
        gamma: NonNegativeFloat = 0.05,
        beta: NonNegativeFloat = 2.0,
    ):
        super().__init__(spec)
        if any(side % 4 for side in spec.shape[1:]):
            raise ValueError(f"model=vaegan halves sides twice, so they must be divisible by 4, not {spec.shape[1:]}")
        self.latent_dim, self.gamma, self.beta = latent_dim, gamma, beta
        size = {"backbone": "conv", "width": width}
        self.encoder = build_encoder(spec, 2 * latent_dim, activation=nn.SiLU, **size)
        self.decoder = build_decoder(spec, latent_dim, math.prod(spec.shape), activation=nn.SiLU, **size)
        self.discriminator = Discriminator(spec, [width, 2 * width])
        self.codes = CodeMemory(latent_dim)

    def train_step(self, step: Step) -> None:
        step.minimize("encoder", self.encoder_loss)
        step.minimize("decoder", self.decoder_loss)
        step.minimize("discriminator", self.discriminator_loss)

    def encoder_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """beta KL - E log p(Dis_l(x) | z)."""
        mu, logvar = self.posterior(batch["image"])
        latent = reparameterise(mu, logvar, batch.random.normal(self.latent_dim))
        self.codes.update(latent)
        reconstruction = self.decode(latent)
        kl = kl_to_standard_normal(mu, logvar).mean()
        error = self.feature_error(batch["image"], reconstruction)
        return self.beta * kl + error, {"kl": kl, "feature_error": error}

    def decoder_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """gamma times the feature error, and the generator's side of the game for reconstructions and samples."""
        reconstruction, sample = self.fakes(batch)
        error = self.feature_error(batch["image"], reconstruction)
        game = nonsaturating(self.discriminator(torch.cat([reconstruction, sample])))
        return self.gamma * error + game, {"game": game}

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Data are real, reconstructions and samples fakes."""
        with torch.no_grad():
            fakes = torch.cat(self.fakes(batch))
        real_logits = self.discriminator(batch["image"])
        fake_logits = self.discriminator(fakes)
        metrics = {"real_probability": real_logits.sigmoid().mean(), "fake_probability": fake_logits.sigmoid().mean()}
        return discriminator_loss(real_logits, fake_logits), metrics

    def fakes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reconstructions of the batch, and samples from the prior. Nothing here reaches the encoder."""
        with torch.no_grad():
            mu, logvar = self.posterior(batch["image"])
        latent = reparameterise(mu, logvar, batch.random.normal(self.latent_dim))
        return self.decode(latent), self.decode(batch.random.normal(self.latent_dim))

    def feature_error(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """-log N(Dis_l(x); Dis_l(x~), I) without its constant (Eq. 7), a mean over the batch."""
        difference = self.discriminator.features(image) - self.discriminator.features(reconstruction)
        return 0.5 * difference.square().flatten(1).sum(1).mean()

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *shape) to the mean and the log variance of q(z | x), (B, latent_dim) each."""
        mu, logvar = self.encoder(flatten_to_unit(x, self.spec.value_range)).float().chunk(2, dim=1)
        return mu, logvar

    def sample(self, random: RowRandom, *, latent: Literal["prior", "gaussian", "gmm", "flow"] = "prior") -> Tensor:
        """Decoded draws from the prior, or from what is fitted to codes drawn for training examples."""
        if latent != "prior" and self.codes.count == 0:
            raise ValueError(f"latent={latent} is fitted to codes of training, and this run has kept none: use prior")
        return self.decode(self.codes.draw(random, latent))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        return tanh_to_range(self.decoder(latent), self.spec.value_range).unflatten(1, self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        mu, _ = self.posterior(x)
        return mu

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        players = ("encoder", "decoder", "discriminator")
        return {player: getattr(self, player).parameters() for player in players}

    def ema_parameters(self) -> Iterable[Parameter]:
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    def evaluate(self, batch: Batch) -> Metrics:
        """The error of pixels in [0, 1], which is not what is minimised, and the KL term."""
        x = batch["image"]
        mu, logvar = self.posterior(x)
        error = to_unit(self.decode(mu), self.spec.value_range) - to_unit(x, self.spec.value_range)
        return {"squared_error": error.flatten(1).square().sum(1), "kl": kl_to_standard_normal(mu, logvar)}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions."""
        x = batch["image"]
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x)))}


class Discriminator(nn.Module):
    """Halvings, whose last maps are the features by which images are compared, and a linear layer."""

    def __init__(self, spec: Spec, channels: list[int]):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([spec.shape[0], *channels]):
            layers += [halving(inputs, outputs), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        pixels = math.prod(spec.shape[1:]) // 4 ** len(channels)
        self.judge = nn.Linear(channels[-1] * pixels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, 1)."""
        return self.judge(self.features(x).flatten(1))
