"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114). `genai train model=vae dataset=mnist`

p(z) = N(0, I) is decoded to p(x | z), and q(z | x) = N(mu, diag(sigma^2)) encodes: training maximises the evidence
lower bound E_q log p(x | z) - KL(q(z | x) || p(z)), in nats.
"""

from functools import partial
from typing import Literal

from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.coders import build_decoder, build_encoder
from genai_cli.nn.gaussians import (
    log_normal,
    log_standard_normal,
    reparameterise,
    risen,
    standard_kl_per_coordinate,
    with_free_bits,
)
from genai_cli.nn.importance import bound_of_draws
from genai_cli.nn.likelihoods import build_likelihood
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class VAE(GenerativeModel):
    """An encoder and a decoder, perceptrons or convolutions, around a Gaussian code.

    `beta` weights the KL term in training alone (Higgins et al. 2017), rising from zero in `beta_warmup` steps;
    `free_bits` (nats) is what each coordinate of the code may say for nothing. What is evaluated is always the bound.
    """

    modalities = ("image", "points", "series", "audio")
    monitor = "negative_elbo"
    tiny = {"width": 8, "latent_dim": 2}
    rules = {
        "beta or not beta_warmup": "beta=0 does not rise: leave beta_warmup at 0",
        "beta or not free_bits": "with beta=0 all bits are free: leave free_bits at 0",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 20,
        width: PositiveInt = 400,
        depth: PositiveInt = 1,
        backbone: Literal["auto", "mlp", "conv"] = "mlp",
        likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "categorical"] = "auto",
        sigma: PositiveFloat | Literal["learned", "optimal"] = "learned",
        levels: PositiveInt | None = None,
        beta: NonNegativeFloat = 1.0,
        beta_warmup: NonNegativeInt = 0,
        free_bits: NonNegativeFloat = 0.0,
    ):
        super().__init__(spec)
        self.latent_dim, self.beta, self.beta_warmup, self.free_bits = latent_dim, beta, beta_warmup, free_bits
        likelihood = build_likelihood(likelihood, spec, sigma=sigma, levels=levels)
        size = {"backbone": backbone, "width": width, "depth": depth}
        self.encoder = build_encoder(spec, 2 * latent_dim, **size)
        self.decoder = build_decoder(spec, latent_dim, likelihood.num_outputs, **size)
        self.likelihood = likelihood

    def train_step(self, step: Step) -> None:
        share = risen(step.number, self.beta_warmup)
        step.minimize("model", partial(self.loss, beta=share * self.beta))

    def loss(self, batch: Batch, *, beta: float | None = None) -> tuple[Tensor, Metrics]:
        reconstruction, kl = self.bound(batch)  # (B,), (B, latent_dim)
        metrics = {name: value.mean() for name, value in self.terms(reconstruction, kl).items()}
        penalty = with_free_bits(kl, self.free_bits) if self.free_bits else metrics["kl"]
        return metrics["reconstruction"] + (self.beta if beta is None else beta) * penalty, metrics

    def bound(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The terms of the negative bound in nats, with one draw from q for the first: (B,) and (B, latent_dim)."""
        x = batch[self.spec.key]  # (B, *shape)
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar, batch.random.normal(self.latent_dim))
        return self.likelihood.nll(self.decoder(z), x.flatten(1)), standard_kl_per_coordinate(mu, logvar)

    def terms(self, reconstruction: Tensor, kl: Tensor) -> Metrics:
        kl = kl.sum(1)
        return {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *shape) to the mean and the log variance of q(z | x), (B, latent_dim) each."""
        mu, logvar = self.encoder(flatten_to_unit(x, self.spec.value_range)).float().chunk(2, dim=1)
        return mu, logvar

    def sample(self, random: RowRandom, *, noise: bool = False) -> Tensor:
        """The mean of p(x | z) for z from the prior, as pictures of a VAE are always shown.

        With `noise`, an honest draw from p(x | z): black and white pixels, or Gaussian noise (kept within the range).
        """
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

    def evaluate(self, batch: Batch, *, importance_samples: NonNegativeInt = 0) -> Metrics:
        """The bound; with `importance_samples=k`, also the tighter one of k draws (5,000 is customary)."""
        figures = self.terms(*self.bound(batch))
        figures |= self.likelihood.in_bits(figures["negative_elbo"], self.spec)
        return figures | bound_of_draws(partial(self._log_weights, batch), importance_samples)

    def _log_weights(self, batch: Batch, count: int) -> Tensor:
        """log p(x, z) / q(z | x) for `count` draws of z for each example, (count, B)."""
        x = batch[self.spec.key]
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar, batch.random.normal(count, self.latent_dim).transpose(0, 1))  # (count, B, D)
        output = self.decoder(z.flatten(0, 1))
        nll = self.likelihood.nll(output, x.flatten(1).repeat(count, 1)).unflatten(0, (count, -1))
        return log_standard_normal(z) - log_normal(z, mu, logvar) - nll

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions from the mean of q."""
        x = batch[self.spec.key]
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x)))}
