"""Beta-VAE and its kin: a VAE whose coordinates are to be independent. `genai train model=beta_vae dataset=mnist`

Beta weighs the whole KL term (Higgins et al. 2017), or the total correlation of the codes alone, told from densities of
a batch (Chen et al. 2018, arXiv:1802.04942) or by a discriminator (Kim & Mnih 2018, arXiv:1802.05983).
"""

from collections.abc import Iterable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.adversarial import discriminator_loss
from genai_cli.nn.coders import build_decoder, build_encoder
from genai_cli.nn.gaussians import (
    kl_to_standard_normal,
    log_normal,
    log_standard_normal,
    reparameterise,
    risen,
    standard_kl_per_coordinate,
    with_free_bits,
)
from genai_cli.nn.importance import bound_of_draws
from genai_cli.nn.likelihoods import build_likelihood
from genai_cli.nn.mlp import mlp
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.nn.total_correlation import decompose, shuffle_coordinates
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

TRAVERSED = 8  # coordinates, and values of each, in a picture


class BetaVAE(GenerativeModel):
    """-E log p(x | z) + KL, and (beta - 1) times one of: the KL itself, or an estimate of the total correlation.

    `penalty` is `kl`, `tc` (densities of the batch) or `factor` (a discriminator with five hidden layers of
    `critic_width`; gamma of FactorVAE is beta - 1 here). Beta rises from zero in `beta_warmup` steps; `free_bits`
    (nats) is what each coordinate of the code may say for nothing. What is evaluated is always the bound.
    """

    modalities = ("image", "points", "series", "audio")
    monitor = "negative_elbo"
    tiny = {"width": 4, "latent_dim": 3}
    rules = {
        "penalty == 'factor' or critic_width == 256": "critic_width belongs to penalty=factor",
        "penalty == 'kl' or not free_bits": "free_bits belongs to penalty=kl: a total correlation is of no coordinate",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 10,
        width: PositiveInt = 32,
        depth: PositiveInt = 1,
        backbone: Literal["auto", "mlp", "conv"] = "auto",
        likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "categorical"] = "auto",
        sigma: PositiveFloat | Literal["learned", "optimal"] = "learned",
        levels: PositiveInt | None = None,
        beta: PositiveFloat = 4.0,
        beta_warmup: NonNegativeInt = 0,
        free_bits: NonNegativeFloat = 0.0,
        penalty: Literal["kl", "tc", "factor"] = "kl",
        critic_width: PositiveInt = 256,
    ):
        super().__init__(spec)
        self.latent_dim, self.penalty = latent_dim, penalty
        self.beta, self.beta_warmup, self.free_bits = beta, beta_warmup, free_bits
        self.likelihood = build_likelihood(likelihood, spec, sigma=sigma, levels=levels)
        size = {"backbone": backbone, "width": width, "depth": depth}
        self.encoder = build_encoder(spec, 2 * latent_dim, **size)
        self.decoder = build_decoder(spec, latent_dim, self.likelihood.num_outputs, **size)
        self.discriminator: nn.Module | None = None
        if penalty == "factor":
            self.discriminator = mlp([latent_dim, *[critic_width] * 5, 1], lambda: nn.LeakyReLU(0.2))

    def train_step(self, step: Step) -> None:
        share = risen(step.number, self.beta_warmup)
        step.minimize("model", partial(self.loss, beta=share * self.beta))
        if self.discriminator is not None:
            step.minimize("discriminator", self.discriminator_loss)

    def loss(self, batch: Batch, *, beta: float | None = None) -> tuple[Tensor, Metrics]:
        x = batch[self.spec.key]
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar, batch.random.normal(self.latent_dim))
        reconstruction = self.likelihood.nll(self.decoder(z), x.flatten(1)).mean()
        kl = kl_to_standard_normal(mu, logvar).mean()
        paid = with_free_bits(standard_kl_per_coordinate(mu, logvar), self.free_bits) if self.free_bits else kl
        metrics = {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
        if self.discriminator is not None:
            metrics["total_correlation"] = self.discriminator(z).mean()  # log D / (1 - D): Eq. 3 of FactorVAE
        elif self.penalty == "tc":
            parts = decompose(z, mu, logvar)
            metrics |= {name: part.mean() for name, part in parts._asdict().items()}
        extra = paid if self.penalty == "kl" else metrics["total_correlation"]
        return reconstruction + paid + ((self.beta if beta is None else beta) - 1) * extra, metrics

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Codes are the real ones, those with shuffled coordinates the fakes (Algorithm 2 of FactorVAE)."""
        with torch.no_grad():
            z = reparameterise(*self.posterior(batch[self.spec.key]), batch.random.normal(self.latent_dim))
            shuffled = shuffle_coordinates(z, batch.random)
        real, fake = self.discriminator(torch.cat([z, shuffled])).chunk(2)
        return discriminator_loss(real, fake), {"probability": real.sigmoid().mean()}

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *shape) to the mean and the log variance of q(z | x), (B, latent_dim) each."""
        mu, logvar = self.encoder(flatten_to_unit(x, self.spec.value_range)).float().chunk(2, dim=1)
        return mu, logvar

    def sample(self, random: RowRandom, *, noise: bool = False) -> Tensor:
        """The mean of p(x | z) for z from the prior; with `noise`, a draw from p(x | z)."""
        latent = self.draw_latent(random)
        if not noise:
            return self.decode(latent)
        return self.likelihood.draw(self.decoder(latent), random).unflatten(1, self.spec.shape)

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        return self.likelihood.mean(self.decoder(latent)).unflatten(1, self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        mu, _ = self.posterior(x)
        return mu

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        judged = set() if self.discriminator is None else set(self.discriminator.parameters())
        groups = {"model": [parameter for parameter in self.parameters() if parameter not in judged]}
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        return groups

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.parameter_groups()["model"]

    def evaluate(self, batch: Batch, *, importance_samples: NonNegativeInt = 0) -> Metrics:
        """The bound; with `importance_samples=k`, also the tighter one of k draws."""
        x = batch[self.spec.key]
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar, batch.random.normal(self.latent_dim))
        reconstruction, kl = self.likelihood.nll(self.decoder(z), x.flatten(1)), kl_to_standard_normal(mu, logvar)
        figures = {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
        figures |= self.likelihood.in_bits(figures["negative_elbo"], self.spec)
        return figures | bound_of_draws(partial(self._log_weights, batch), importance_samples)

    def _log_weights(self, batch: Batch, count: int) -> Tensor:
        """log p(x, z) / q(z | x) for `count` draws of z for each example, (count, B)."""
        x = batch[self.spec.key]
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar, batch.random.normal(count, self.latent_dim).transpose(0, 1))  # (count, B, D)
        nll = self.likelihood.nll(self.decoder(z.flatten(0, 1)), x.flatten(1).repeat(count, 1))
        return log_standard_normal(z) - log_normal(z, mu, logvar) - nll.unflatten(0, (count, -1))

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstructions below their data; and the first example with one coordinate changed along each row."""
        x = batch[self.spec.key]
        mu, logvar = self.posterior(x)
        pictures = {"reconstruction": alternate_rows(x, self.decode(mu))}
        rows = min(TRAVERSED, self.latent_dim)
        told = (mu.square() - logvar).mean(0).topk(rows).indices  # the coordinates that say most
        values = torch.linspace(-2.5, 2.5, TRAVERSED, device=x.device)
        latent = mu[:1].repeat(rows * TRAVERSED, 1)
        places = torch.arange(len(latent), device=x.device)
        latent[places, told[places // TRAVERSED]] = values[places % TRAVERSED]
        return pictures | {"traversal": self.decode(latent)}
