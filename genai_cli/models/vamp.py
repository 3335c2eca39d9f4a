"""VAE with a VampPrior (Tomczak & Welling 2018, arXiv:1705.07120). `genai train model=vamp dataset=mnist`

The best prior of a VAE is the mean of its posteriors over all data; this one is the mean over K learned pseudo-inputs:
p(z) = 1/K sum_k q(z | u_k) (Eq. 9). The KL term has no closed form and is estimated with the draw that is decoded.
"""

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.coders import build_decoder, build_encoder
from genai_cli.nn.gaussians import log_normal, reparameterise, risen, with_free_bits
from genai_cli.nn.importance import bound_of_draws
from genai_cli.nn.likelihoods import build_likelihood
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit, from_unit
from genai_cli.nn.ranks import gather_over_ranks
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

NOISE = 0.1  # upon the examples that pseudo-inputs begin as


class VampVAE(GenerativeModel):
    """An encoder, a decoder and `num_pseudo` pseudo-inputs in the shape of the data.

    They begin as the first examples, with noise upon them: from noise alone few of many are ever brought near the data,
    and the others are drawn as often. In training alone `beta` weighs log q(z | x) - log p(z), rising from zero in
    `beta_warmup` steps, as there; `free_bits` (nats) is what the whole code may say for nothing, for this prior does
    not split into coordinates.
    """

    modalities = ("image", "points", "series", "audio")
    monitor = "negative_elbo"
    tiny = {"width": 8, "latent_dim": 2, "num_pseudo": 5}
    rules = {
        "beta or not beta_warmup": "beta=0 does not rise: give beta_warmup=0, too",
        "beta or not free_bits": "with beta=0 all bits are free: leave free_bits at 0",
    }

    is_begun: Tensor  # bool: the pseudo-inputs have seen data

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 40,
        num_pseudo: PositiveInt = 200,
        width: PositiveInt = 300,
        depth: PositiveInt = 2,
        backbone: Literal["auto", "mlp", "conv"] = "mlp",
        likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "categorical"] = "auto",
        sigma: PositiveFloat | Literal["learned", "optimal"] = "learned",
        levels: PositiveInt | None = None,
        beta: NonNegativeFloat = 1.0,
        beta_warmup: NonNegativeInt = 0,
        free_bits: NonNegativeFloat = 0.0,
    ):
        super().__init__(spec)
        self.latent_dim = latent_dim
        self.beta, self.beta_warmup, self.free_bits = beta, beta_warmup, free_bits
        self.likelihood = build_likelihood(likelihood, spec, sigma=sigma, levels=levels)
        size = {"backbone": backbone, "width": width, "depth": depth}
        self.encoder = build_encoder(spec, 2 * latent_dim, **size)
        self.decoder = build_decoder(spec, latent_dim, self.likelihood.num_outputs, **size)
        self.pseudo = nn.Parameter(torch.randn(num_pseudo, math.prod(spec.shape)))  # of pixels, before a sigmoid
        self.register_buffer("is_begun", torch.tensor(False))

    def train_step(self, step: Step) -> None:
        share = risen(step.number, self.beta_warmup)
        step.minimize("model", partial(self.loss, beta=share * self.beta))

    def loss(self, batch: Batch, *, beta: float | None = None) -> tuple[Tensor, Metrics]:
        beta = self.beta if beta is None else beta
        terms = self.terms(batch)
        penalty = with_free_bits(terms["kl"].unsqueeze(1), self.free_bits) if self.free_bits else terms["kl"]
        loss = terms["reconstruction"] + beta * penalty
        return loss.mean(), {key: value.mean() for key, value in terms.items()}

    def terms(self, batch: Batch) -> Metrics:
        """The negative bound and its two terms, (B,) each, in nats, with one draw from q for both."""
        x = batch[self.spec.key]
        if self.training and not self.is_begun:
            self._begin(x)
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar, batch.random.normal(self.latent_dim))
        reconstruction = self.likelihood.nll(self.decoder(z), x.flatten(1))
        kl = log_normal(z, mu, logvar) - self.log_prior(z)
        return {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def _begin(self, x: Tensor) -> None:
        """Take the rows of all ranks, again and again, for pseudo-inputs; the noise that these were tells equal ones
        apart."""
        rows = gather_over_ranks(flatten_to_unit(x, self.spec.value_range))
        rows = rows if self.spec.value_range is None else (0.02 + 0.96 * rows).logit()
        chosen = torch.arange(len(self.pseudo), device=rows.device) % len(rows)
        self.pseudo.copy_(rows[chosen] + NOISE * self.pseudo)
        self.is_begun.fill_(True)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *shape) to the mean and the log variance of q(z | x), (B, latent_dim) each."""
        return self._code(flatten_to_unit(x, self.spec.value_range))

    def _code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).float().chunk(2, dim=1)
        return mu, logvar

    def pseudo_inputs(self) -> Tensor:
        """(K, D), in [0, 1] where the data have a range."""
        return self.pseudo if self.spec.value_range is None else self.pseudo.sigmoid()

    def log_prior(self, z: Tensor) -> Tensor:
        """log 1/K sum_k q(z | u_k), (..., D) to (...)."""
        mu, logvar = self._code(self.pseudo_inputs())
        return log_normal(z.unsqueeze(-2), mu, logvar).logsumexp(-1) - math.log(len(mu))

    def sample(self, random: RowRandom, *, noise: bool = False) -> Tensor:
        """The mean of p(x | z) for z from the prior; with `noise`, a draw from p(x | z)."""
        output = self.decoder(self.draw_latent(random))
        x = self.likelihood.draw(output, random) if noise else self.likelihood.mean(output)
        return x.unflatten(1, self.spec.shape)

    def draw_latent(self, random: RowRandom) -> Tensor:
        mu, logvar = self._code(self.pseudo_inputs())
        k = random.integers(len(mu))  # (B,)
        return reparameterise(mu[k], logvar[k], random.normal(self.latent_dim))

    def decode(self, latent: Tensor) -> Tensor:
        return self.likelihood.mean(self.decoder(latent)).unflatten(1, self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        mu, _ = self.posterior(x)
        return mu

    def evaluate(self, batch: Batch, *, importance_samples: NonNegativeInt = 0) -> Metrics:
        """The bound; with `importance_samples=k`, also the tighter one of k draws."""
        figures = self.terms(batch)
        figures |= self.likelihood.in_bits(figures["negative_elbo"], self.spec)
        return figures | bound_of_draws(partial(self._log_weights, batch), importance_samples)

    def _log_weights(self, batch: Batch, count: int) -> Tensor:
        """log p(x, z) / q(z | x) for `count` draws of z for each example, (count, B)."""
        x = batch[self.spec.key]
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar, batch.random.normal(count, self.latent_dim).transpose(0, 1))  # (count, B, D)
        nll = self.likelihood.nll(self.decoder(z.flatten(0, 1)), x.flatten(1).repeat(count, 1))
        return self.log_prior(z) - log_normal(z, mu, logvar) - nll.unflatten(0, (count, -1))

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstructions below their data, and pseudo-inputs."""
        x = batch[self.spec.key]
        pseudo = self.pseudo_inputs()[:64]
        value_range = self.spec.value_range
        shown = (pseudo if value_range is None else from_unit(pseudo, value_range)).unflatten(1, self.spec.shape)
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x))), "pseudo_inputs": shown}
