"""Wasserstein autoencoder (Tolstikhin et al. 2018, arXiv:1711.01558). `genai train model=wae dataset=mnist`

Reconstruction, and all codes together pushed towards the prior N(0, I): E ||x - G(Q(x))||^2 + lambda D(Q_z, P_z). D is
either a maximum mean discrepancy (Algorithm 2) or the game of a discriminator on codes (Algorithm 1), which is the
adversarial autoencoder of Makhzani et al. 2015 (arXiv:1511.05644; preset `aae`).
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.adversarial import discriminator_loss, nonsaturating
from genai_cli.nn.coders import build_decoder, build_encoder
from genai_cli.nn.discrepancy import mmd
from genai_cli.nn.latents import CodeMemory
from genai_cli.nn.mlp import mlp
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit, from_unit
from genai_cli.nn.ranks import gather_over_ranks
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import PositiveFloat, PositiveInt


class WAE(GenerativeModel):
    """A deterministic encoder and a decoder, perceptrons or convolutions, and a divergence between codes and prior.

    `weight` is lambda. With `divergence=adversarial`, the autoencoder also plays against a discriminator of two hidden
    layers of `critic_width`, which tells codes from draws of the prior.
    """

    modalities = ("image", "points", "series", "audio")
    monitor = "squared_error"
    tiny = {"width": 4, "latent_dim": 2}
    rules = {"divergence == 'adversarial' or critic_width == 256": "critic_width belongs to divergence=adversarial"}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 8,
        width: PositiveInt = 400,
        depth: PositiveInt = 2,
        backbone: Literal["auto", "mlp", "conv"] = "mlp",
        divergence: Literal["mmd", "adversarial"] = "mmd",
        weight: PositiveFloat = 100.0,
        critic_width: PositiveInt = 256,
    ):
        super().__init__(spec)
        self.latent_dim, self.divergence, self.weight = latent_dim, divergence, weight
        size = {"backbone": backbone, "width": width, "depth": depth, "activation": nn.SiLU}
        self.encoder = build_encoder(spec, latent_dim, **size)
        self.decoder = build_decoder(spec, latent_dim, math.prod(spec.shape), **size)
        self.discriminator: nn.Module | None = None
        if divergence == "adversarial":
            self.discriminator = mlp([latent_dim, critic_width, critic_width, 1], lambda: nn.LeakyReLU(0.2))
        self.codes = CodeMemory(latent_dim)

    def train_step(self, step: Step) -> None:
        if self.discriminator is not None:
            step.minimize("discriminator", self.discriminator_loss)
        step.minimize("autoencoder", self.autoencoder_loss)

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Draws of the prior are the real ones, codes the fakes."""
        with torch.no_grad():
            code = self.encode(batch[self.spec.key])
        real, fake = self.discriminator(torch.cat([batch.random.normal(self.latent_dim), code])).chunk(2)
        metrics = {"prior_probability": real.sigmoid().mean(), "code_probability": fake.sigmoid().mean()}
        return discriminator_loss(real, fake), metrics

    def autoencoder_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        x = flatten_to_unit(batch[self.spec.key], self.spec.value_range)
        code = self.encoder(x).float()
        self.codes.update(code)
        error = (self.reconstruct(code) - x).square().sum(1).mean()
        if self.discriminator is not None:
            divergence = nonsaturating(self.discriminator(code))
        else:
            prior = batch.random.normal(self.latent_dim)
            divergence = mmd(gather_over_ranks(code), gather_over_ranks(prior))
        return error + self.weight * divergence, {"squared_error": error, "divergence": divergence}

    def reconstruct(self, code: Tensor) -> Tensor:
        """(B, latent_dim) to (B, D), in [0, 1] where the data have a range."""
        output = self.decoder(code).float()
        return output if self.spec.value_range is None else output.sigmoid()

    def sample(self, random: RowRandom, *, latent: Literal["prior", "gaussian", "gmm", "flow"] = "prior") -> Tensor:
        """Decoded draws from the prior, or from what is fitted to the training codes."""
        return self.decode(self.codes.draw(random, latent))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        x = self.reconstruct(latent)
        value_range = self.spec.value_range
        return (x if value_range is None else from_unit(x, value_range)).unflatten(1, self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(flatten_to_unit(x, self.spec.value_range)).float()

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        groups = {"autoencoder": [*self.encoder.parameters(), *self.decoder.parameters()]}
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        return groups

    def ema_parameters(self) -> Iterable[Parameter]:
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    def evaluate(self, batch: Batch) -> Metrics:
        """The error, and the square of each code's norm over `latent_dim`: 1 on average under the prior."""
        x = flatten_to_unit(batch[self.spec.key], self.spec.value_range)
        code = self.encoder(x).float()
        error = (self.reconstruct(code) - x).square().sum(1)
        return {"squared_error": error, "squared_norm_per_dim": code.square().mean(1)}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions."""
        x = batch[self.spec.key]
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x)))}
