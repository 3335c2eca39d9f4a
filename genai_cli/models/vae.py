"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114). `genai train model=vae dataset=mnist`

p(z) = N(0, I) is decoded to p(x | z), and q(z | x) = N(mu, diag(sigma^2)) encodes: training maximises the evidence
lower bound E_q log p(x | z) - KL(q(z | x) || p(z)), in nats.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.mlp import mlp
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import Range, flatten_to_unit, from_unit, tanh_to_range, to_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeFloat, PositiveInt


class VAE(GenerativeModel):
    """Two perceptrons around a Gaussian code: data -> width -> latent_dim -> width -> data.

    `likelihood=auto` is bernoulli where the data have a range (pixels), gaussian where they have none. `beta` weights
    the KL term in training alone (Higgins et al. 2017): what is evaluated is always the bound.
    """

    modalities = ("image", "points")
    monitor = "negative_elbo"
    tiny = {"width": 8, "latent_dim": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 20,
        width: PositiveInt = 400,
        likelihood: Literal["auto", "bernoulli", "gaussian"] = "auto",
        beta: NonNegativeFloat = 1.0,
    ):
        super().__init__(spec)
        self.latent_dim, self.beta = latent_dim, beta
        data_dim = math.prod(spec.shape)
        self.encoder = mlp([data_dim, width, 2 * latent_dim])
        self.decoder = mlp([latent_dim, width, data_dim])
        self.likelihood = build_likelihood(likelihood, spec)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        reconstruction, kl = self.bound(batch)
        metrics = {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
        return (reconstruction + self.beta * kl).mean(), {name: value.mean() for name, value in metrics.items()}

    def bound(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The two terms of the negative bound, (B,) each, in nats, with one draw from q for the first."""
        x = batch[self.spec.key]  # (B, *shape)
        mu, logvar = self.posterior(x)
        z = mu + torch.exp(0.5 * logvar) * batch.random.normal(self.latent_dim)
        return self.likelihood.nll(self.decoder(z), x.flatten(1)), kl_to_standard_normal(mu, logvar)

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

    def evaluate(self, batch: Batch) -> Metrics:
        reconstruction, kl = self.bound(batch)
        return {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions from the mean of q."""
        x = batch[self.spec.key]
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x)))}


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag(exp(logvar))) || N(0, I)), (B, D) twice to (B,), in nats (Appendix B)."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


class Bernoulli(nn.Module):
    """Each coordinate a coin of probability sigmoid(output), for data scaled to [0, 1].

    Exact for black and white pixels. For grey ones it is the customary cross-entropy: a bound in nats that compares
    only with others of its kind, for it is no density over [0, 1] (Loaiza-Ganem & Cunningham 2019).
    """

    def __init__(self, value_range: Range):
        super().__init__()
        self.value_range = value_range

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """(B, D) twice to (B,)."""
        unit = to_unit(x, self.value_range)
        return F.binary_cross_entropy_with_logits(output.float(), unit, reduction="none").sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return from_unit(output.sigmoid(), self.value_range)

    def draw(self, output: Tensor, random: RowRandom) -> Tensor:
        is_one = random.uniform(output.shape[1]) < output.sigmoid()
        return from_unit(is_one.to(output.dtype), self.value_range)


class Gaussian(nn.Module):
    """N(mean, sigma^2) for each coordinate, with one learned sigma; a density per unit of the data as they are fed.

    Where the data are bounded, a tanh keeps the mean within their range.
    """

    def __init__(self, value_range: Range | None):
        super().__init__()
        self.value_range = value_range
        # Begins small beside the data: from sigma = 1 the decoder of points learns to do without z.
        self.log_sigma = nn.Parameter(torch.tensor(-1.0))

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """(B, D) twice to (B,)."""
        residual = (x - self.mean(output.float())) / self.log_sigma.exp()
        return (0.5 * residual.square() + self.log_sigma + 0.5 * math.log(2 * math.pi)).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return tanh_to_range(output, self.value_range)

    def draw(self, output: Tensor, random: RowRandom) -> Tensor:
        x = self.mean(output) + self.log_sigma.exp() * random.normal(output.shape[1])
        return x if self.value_range is None else x.clamp(*self.value_range)


def build_likelihood(name: str, spec: Spec) -> Bernoulli | Gaussian:
    """Raises ValueError where bernoulli is asked for data without a range."""
    if name == "auto":
        name = "gaussian" if spec.value_range is None else "bernoulli"
    if name == "gaussian":
        return Gaussian(spec.value_range)
    if spec.value_range is None:
        raise ValueError(
            f"model.likelihood=bernoulli needs data with a range, which {spec.modality} do not have: "
            "use model.likelihood=gaussian"
        )
    return Bernoulli(spec.value_range)
