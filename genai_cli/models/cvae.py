"""Conditional variational autoencoder (Sohn et al. 2015, NeurIPS). `genai train model=cvae dataset=mnist`

Everything is given the class y: E_q log p(x | z, y) - KL(q(z | x, y) || N(0, I)) bounds log p(x | y), so that z is left
with what the class does not say: of a digit, its hand.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.coders import build_decoder, build_encoder, resolve_backbone
from genai_cli.nn.gaussians import (
    log_normal,
    log_standard_normal,
    reparameterise,
    risen,
    standard_kl_per_coordinate,
    with_free_bits,
)
from genai_cli.nn.importance import bound_of_draws
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.likelihoods import build_likelihood
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class CVAE(GenerativeModel):
    """A VAE whose encoder sees the class beside its features of x, and whose decoder sees it beside z.

    As one vector, a latent is `style_dim` numbers z and the class as one-hot: `decode` takes both. In training alone
    `beta` weighs the KL term, rising from zero in `beta_warmup` steps; `free_bits` (nats) is what each number of z may
    say for nothing.
    """

    modalities = ("image",)
    monitor = "negative_elbo"
    tiny = {"width": 8, "style_dim": 2}
    rules = {
        "beta or not beta_warmup": "beta=0 does not rise: leave beta_warmup at 0",
        "beta or not free_bits": "with beta=0 all bits are free: leave free_bits at 0",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        style_dim: PositiveInt = 16,
        width: PositiveInt = 400,
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
        if not spec.classes:
            raise ValueError("model=cvae is conditioned on labels, and these data have none: use model=vae")
        self.style_dim, self.num_classes = style_dim, len(spec.classes)
        self.beta, self.beta_warmup, self.free_bits = beta, beta_warmup, free_bits
        self.latent_dim = style_dim + self.num_classes
        self.likelihood = build_likelihood(likelihood, spec, sigma=sigma, levels=levels)
        size = {"backbone": backbone, "width": width, "depth": depth}
        num_features = 8 * width if resolve_backbone(backbone, spec) == "conv" else width
        self.features = build_encoder(spec, num_features, **size)
        self.posterior_head = nn.Sequential(nn.ReLU(), nn.Linear(num_features + self.num_classes, 2 * style_dim))
        self.decoder = build_decoder(spec, self.latent_dim, self.likelihood.num_outputs, **size)

    def train_step(self, step: Step) -> None:
        share = risen(step.number, self.beta_warmup)
        step.minimize("model", partial(self.loss, beta=share * self.beta))

    def loss(self, batch: Batch, *, beta: float | None = None) -> tuple[Tensor, Metrics]:
        beta = self.beta if beta is None else beta
        reconstruction, kl = self.bound(batch)  # (B,), (B, style_dim)
        terms = self.terms(reconstruction, kl)
        loss = (reconstruction + beta * terms["kl"]).mean()
        if self.free_bits:
            loss = reconstruction.mean() + beta * with_free_bits(kl, self.free_bits)
        return loss, {name: value.mean() for name, value in terms.items()}

    def bound(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The terms of the negative bound of log p(x | y) in nats, with one draw of z: (B,) and (B, style_dim)."""
        x, label = batch[self.spec.key], self.one_hot(batch["label"])
        mu, logvar = self.style_posterior(x, label)
        z = reparameterise(mu, logvar, batch.random.normal(self.style_dim))
        reconstruction = self.likelihood.nll(self.decoder(torch.cat([z, label], dim=1)), x.flatten(1))
        return reconstruction, standard_kl_per_coordinate(mu, logvar)

    def terms(self, reconstruction: Tensor, kl: Tensor) -> Metrics:
        kl = kl.sum(1)
        return {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    def style_posterior(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *shape) and (B, K) to the mean and the log variance of q(z | x, y), (B, style_dim) each."""
        features = self.features(flatten_to_unit(x, self.spec.value_range))  # (B, num_features)
        mu, logvar = self.posterior_head(torch.cat([features, label], dim=1)).float().chunk(2, dim=1)
        return mu, logvar

    def posterior_of_rows(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.style_posterior(rows[self.spec.key], self.one_hot(rows["label"]))

    def one_hot(self, label: Tensor) -> Tensor:
        """(B,) to (B, K), of mean square 1 as z is: a plain one-hot is lost among the numbers of z."""
        return F.one_hot(label, self.num_classes) * math.sqrt(self.num_classes)

    def sample(self, random: RowRandom, *, label: NonNegativeInt | None = None, noise: bool = False) -> Tensor:
        """The mean of p(x | z, y) for z from the prior and y = `label`, or each class in turn.

        With `noise`, a draw from p(x | z, y).
        """
        output = self.decoder(self._latent(random, label))
        x = self.likelihood.draw(output, random) if noise else self.likelihood.mean(output)
        return x.unflatten(1, self.spec.shape)

    def _latent(self, random: RowRandom, label: int | None) -> Tensor:
        labels = self.one_hot(sample_labels(random, self.num_classes, label))
        return torch.cat([random.normal(self.style_dim), labels], dim=1)

    def draw_latent(self, random: RowRandom) -> Tensor:
        return self._latent(random, None)

    def decode(self, latent: Tensor) -> Tensor:
        return self.likelihood.mean(self.decoder(latent)).unflatten(1, self.spec.shape)

    def encode_rows(self, rows: Mapping[str, Tensor]) -> Tensor:
        """As `decode` takes them, (B, latent_dim): the mean of z, and the class."""
        if "label" not in rows:
            raise ValueError(
                "model=cvae is told the class of what it encodes: give label=0, say, or a folder whose sub-folders "
                f"are named as its classes, {', '.join(self.spec.classes)}"
            )
        mu, _ = self.posterior_of_rows(rows)
        return torch.cat([mu, self.one_hot(rows["label"])], dim=1)

    def evaluate(self, batch: Batch, *, importance_samples: NonNegativeInt = 0) -> Metrics:
        """The bound of log p(x | y); with `importance_samples=k`, also the tighter one of k draws."""
        figures = self.terms(*self.bound(batch))
        figures |= self.likelihood.in_bits(figures["negative_elbo"], self.spec)
        return figures | bound_of_draws(partial(self._log_weights, batch), importance_samples)

    def _log_weights(self, batch: Batch, count: int) -> Tensor:
        """log p(x, z | y) / q(z | x, y) for `count` draws of z for each example, (count, B)."""
        x, label = batch[self.spec.key], self.one_hot(batch["label"])
        mu, logvar = self.style_posterior(x, label)
        z = reparameterise(mu, logvar, batch.random.normal(count, self.style_dim).transpose(0, 1))  # (count, B, D)
        latent = torch.cat([z, label.expand(count, -1, -1)], dim=2).flatten(0, 1)
        nll = self.likelihood.nll(self.decoder(latent), x.flatten(1).repeat(count, 1)).unflatten(0, (count, -1))
        return log_standard_normal(z) - log_normal(z, mu, logvar) - nll

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstructions below their data; and the hands of the first examples, one a row, writing every class."""
        x, label = batch[self.spec.key], self.one_hot(batch["label"])
        rows = columns = min(self.num_classes, 10)
        style, _ = self.style_posterior(x[:rows], label[:rows])  # (R, style_dim)
        every = self.one_hot(torch.arange(columns, device=x.device)).repeat(len(style), 1)  # (R columns, K)
        latent = torch.cat([style.repeat_interleave(columns, 0), every], dim=1)
        reconstruction = alternate_rows(x, self.decode(self.encode_rows(batch)))
        return {"reconstruction": reconstruction, "analogies": self.decode(latent)}
