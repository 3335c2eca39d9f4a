"""Hierarchical VAE (Child 2021, arXiv:2011.10650), with the ladder's inference (arXiv:1602.02282) as an option.

`genai train model=hvae dataset=binary_mnist`. The prior is p(z_1) p(z_2 | z_1) ..., from one position to a grid, and
the posterior takes the same way down with the data's features beside it, so that each latent map adds what the coarser
ones left open.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.conv import doubling
from genai_cli.nn.gaussians import active_units, kl_per_coordinate, log_normal, risen, with_free_bits
from genai_cli.nn.hierarchy import BottomUp, LatentMap, Noise, TopDown
from genai_cli.nn.importance import bound_of_draws
from genai_cli.nn.likelihoods import build_likelihood
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import to_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class HierarchicalVAE(GenerativeModel):
    """Convolutions with `depth` latent maps at each of several sides: one position, then 4 or 7 of a side, doubling.

    `inference=deep` lets a network of all that is known be the posterior; `ladder` multiplies the prior by what the
    data say. In the first `beta_warmup` steps a coarse map's KL term weighs less, the coarsest's nothing at first: else
    the finer maps, which learn sooner, leave it nothing to say. In training alone `beta` weighs the KL term of all
    maps, and `free_bits` (nats) is what each channel of a map may say for nothing (Kingma et al. 2016, Eq. 15).
    """

    modalities = ("image",)
    monitor = "negative_elbo"
    tiny = {"width": 4, "latent_channels": 1, "depth": 1}
    rules = {
        "beta or not beta_warmup": "with beta=0 all bits are free from the first step: give beta_warmup=0, too",
        "beta or not free_bits": "with beta=0 all bits are free: leave free_bits at 0",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 32,
        latent_channels: PositiveInt = 4,
        depth: PositiveInt = 2,
        inference: Literal["deep", "ladder"] = "deep",
        likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "categorical"] = "auto",
        sigma: PositiveFloat | Literal["learned", "optimal"] = "learned",
        levels: PositiveInt | None = None,
        beta: NonNegativeFloat = 1.0,
        beta_warmup: NonNegativeInt = 0,
        free_bits: NonNegativeFloat = 0.0,
    ):
        super().__init__(spec)
        self.beta, self.beta_warmup, self.free_bits = beta, beta_warmup, free_bits
        self.likelihood = build_likelihood(likelihood, spec, sigma=sigma, levels=levels)
        channels, height, _ = spec.shape
        self.latent_sides = latent_sides(spec)
        self.bottom_up = BottomUp(channels, width, self.latent_sides, depth)
        self.top_down = TopDown(width, latent_channels, self.latent_sides, depth, is_ladder=inference == "ladder")
        self.head = doubling(width, self.likelihood.num_outputs // height**2)

    def train_step(self, step: Step) -> None:
        step.minimize("model", partial(self.loss, warmth=risen(step.number, self.beta_warmup)))

    def loss(self, batch: Batch, *, warmth: float = 1.0) -> tuple[Tensor, Metrics]:
        reconstruction, kl_maps = self.bound(batch)
        terms = self.terms(reconstruction, kl_maps)
        loss = reconstruction
        sides = sorted(set(self.latent_sides))
        for rank, side in enumerate(sides):
            start = rank / max(1, len(sides) - 1)
            loss = loss + self.beta * (start + warmth * (1 - start)) * self._penalty(side, terms, kl_maps)
        return loss.mean(), {key: value.mean() for key, value in terms.items()}

    def _penalty(self, side: int, terms: Metrics, kl_maps: list[Tensor]) -> Tensor:
        """The nats of the maps at a side, (B,); with `free_bits` a scalar, of each channel no less than these."""
        if not self.free_bits:
            return terms[f"kl_{side}"]
        channels = torch.cat([kl.sum((2, 3)) for kl in kl_maps if kl.shape[-1] == side], dim=1)
        return with_free_bits(channels, self.free_bits)

    def bound(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """The terms of the negative bound in nats: (B,), and (B, C, h, w) of each latent map."""
        image = batch["image"]
        output, latents = self.infer(image, batch.random.normal)
        reconstruction = self.likelihood.nll(output, image.flatten(1))
        return reconstruction, [kl_per_coordinate(*latent[1:]) for latent in latents]

    def terms(self, reconstruction: Tensor, kl_maps: list[Tensor]) -> Metrics:
        """The negative bound and its terms, (B,) each; of the KL term also the share of each side."""
        shares: Metrics = defaultdict(lambda: torch.zeros_like(reconstruction))
        for kl in kl_maps:
            shares[f"kl_{kl.shape[-1]}"] += kl.flatten(1).sum(1)
        kl = torch.stack(list(shares.values())).sum(0)
        return {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl, **shares}

    def infer(self, image: Tensor, noise: Noise, *, copies: int = 1) -> tuple[Tensor, list[LatentMap]]:
        """The decoder's output for draws from the posterior, (copies B, num_outputs), and the latent maps."""
        features = [part.repeat(copies, 1, 1, 1) for part in self.bottom_up(to_unit(image, self.spec.value_range))]
        h, latents = self.top_down(copies * len(image), features, noise)
        return self.head(F.gelu(h)).flatten(1), latents

    def infer_means(self, image: Tensor) -> tuple[Tensor, list[LatentMap]]:
        """As `infer`, each latent map at the mean of its posterior given the means of those before it."""
        return self.infer(image, lambda *shape: torch.zeros(len(image), *shape, device=image.device))

    def encode_rows(self, rows: Mapping[str, Tensor]) -> Tensor:
        """The means of all latent maps beside each other, the coarsest first."""
        _, latents = self.infer_means(rows["image"])
        return torch.cat([latent.mu.flatten(1) for latent in latents], dim=1)

    def sample(self, random: RowRandom, *, temperature: NonNegativeFloat = 1.0, noise: bool = False) -> Tensor:
        """The mean of p(x | z) for z from the prior, whose deviations `temperature` scales; with `noise`, a draw."""
        h, _ = self.top_down(random.size, None, random.normal, temperature=temperature)
        output = self.head(F.gelu(h)).flatten(1)
        x = self.likelihood.draw(output, random) if noise else self.likelihood.mean(output)
        return x.unflatten(1, self.spec.shape)

    def evaluate(self, batch: Batch, *, importance_samples: NonNegativeInt = 0) -> Metrics:
        """The bound; with `importance_samples=k`, also the tighter one of k draws."""
        figures = self.terms(*self.bound(batch))
        figures |= self.likelihood.in_bits(figures["negative_elbo"], self.spec)
        return figures | bound_of_draws(partial(self._log_weights, batch), importance_samples)

    def statistics(self, batch: Batch) -> dict[str, float]:
        """How many numbers of the latent maps are in use, by side.

        One is, where the mean of its posterior less that of its prior, in units of the prior's deviation, varies with
        the data by more than 0.01: the measure of Burda et al. 2016 (Section 5.2), less what the coarser maps foretell.
        """
        units = {f"active_units_{side}": 0 for side in self.latent_sides}
        for _, mu, _, prior_mu, prior_logvar in self.infer_means(batch["image"])[1]:
            told = (mu - prior_mu) * torch.exp(-0.5 * prior_logvar)
            units[f"active_units_{mu.shape[-1]}"] += active_units(told.flatten(1))
        return units

    def _log_weights(self, batch: Batch, count: int) -> Tensor:
        """log p(x, z) / q(z | x) for `count` draws of z for each example, (count, B)."""
        image = batch["image"]

        def noise(*shape: int) -> Tensor:
            return batch.random.normal(count, *shape).transpose(0, 1).flatten(0, 1)  # (count B, *shape)

        output, latents = self.infer(image, noise, copies=count)
        log_weight = -self.likelihood.nll(output, image.flatten(1).repeat(count, 1))
        for latent in latents:
            z, mu, logvar, prior_mu, prior_logvar = (part.flatten(1) for part in latent)
            log_weight = log_weight + log_normal(z, prior_mu, prior_logvar) - log_normal(z, mu, logvar)
        return log_weight.unflatten(0, (count, -1))

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions from the posterior's means."""
        image = batch["image"]
        output, _ = self.infer_means(image)
        shown = self.likelihood.mean(output).unflatten(1, self.spec.shape)
        return {"reconstruction": alternate_rows(image, shown)}


def latent_sides(spec: Spec) -> list[int]:
    """Of the latent maps, the coarsest first: (1, 28, 28) gives [1, 7, 14].

    Raises ValueError if the image is not square with an even side.
    """
    _, height, width = spec.shape
    if height != width or height % 2:
        raise ValueError(f"model=hvae takes square images with an even side, not {height}x{width}")
    sides = [height // 2]
    while sides[0] % 2 == 0 and sides[0] > 7:
        sides.insert(0, sides[0] // 2)
    return [1, *sides]
