"""Importance-weighted autoencoder (Burda et al. 2016, arXiv:1509.00519). `genai train model=iwae dataset=binary_mnist`

Training maximises log 1/k sum_i p(x, h_i) / q(h_i | x) with k draws from q (Eq. 8): the ELBO where k = 1, and closer to
log p(x) with every draw more, which leaves the posterior free to be of another shape than q. What that bound tells the
encoder drowns in noise as k grows (Rainforth et al. 2018, arXiv:1802.04537); `gradient=doubly` is the estimator of
Tucker et al. 2019 (arXiv:1810.04152), of the same mean and without that defect.
"""

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.func import functional_call

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.coders import build_decoder, build_encoder
from genai_cli.nn.gaussians import active_units, log_normal, log_standard_normal, reparameterise
from genai_cli.nn.importance import DrawScale, bound_of_draws, log_mean_exp
from genai_cli.nn.likelihoods import build_likelihood
from genai_cli.nn.mlp import mlp
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeInt, PositiveFloat, PositiveInt

UPPER_DRAWS = 25  # of the layer below, for the mean of the upper posterior


class IWAE(GenerativeModel):
    """Perceptrons of two tanh layers around one stochastic layer of `latent_dim`, or two.

    With `lower_dim`, a layer of as many numbers stands between data and code: q(h1 | x) q(h2 | h1) and p(h2) p(h1 | h2)
    p(x | h1), with layers half as wide between the two.
    """

    modalities = ("image", "points", "series", "audio")
    monitor = "negative_bound"
    tiny = {"width": 8, "latent_dim": 2, "k": 3}

    def __init__(
        self,
        spec: Spec,
        *,
        k: PositiveInt = 50,
        gradient: Literal["standard", "doubly"] = "standard",
        latent_dim: PositiveInt = 50,
        lower_dim: PositiveInt | None = None,
        width: PositiveInt = 200,
        depth: PositiveInt = 2,
        backbone: Literal["auto", "mlp", "conv"] = "mlp",
        likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "categorical"] = "auto",
        sigma: PositiveFloat | Literal["learned", "optimal"] = "learned",
        levels: PositiveInt | None = None,
    ):
        super().__init__(spec)
        self.k, self.gradient, self.latent_dim, self.lower_dim = k, gradient, latent_dim, lower_dim
        first_dim = lower_dim or latent_dim
        self.likelihood = build_likelihood(likelihood, spec, sigma=sigma, levels=levels, from_mean=True)
        size = {"backbone": backbone, "width": width, "depth": depth, "activation": nn.Tanh}
        self.encoder = build_encoder(spec, 2 * first_dim, **size)
        self.decoder = build_decoder(spec, first_dim, self.likelihood.num_outputs, **size)
        if lower_dim:
            hidden = [max(1, width // 2)] * depth
            self.upper_encoder = mlp([lower_dim, *hidden, 2 * latent_dim], nn.Tanh)
            self.upper_decoder = mlp([latent_dim, *hidden, 2 * lower_dim], nn.Tanh)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        scale = DrawScale() if self.gradient == "doubly" else None
        log_weights = self.log_weights(batch, self.k, scale)
        shares = log_weights.softmax(0)  # (k, B): the normalised weights
        if scale:
            scale.weights = shares.detach()
        metrics = {"negative_elbo": -log_weights.mean(0), "effective_draws": 1 / shares.square().sum(0)}
        return -log_mean_exp(log_weights).mean(), {name: value.mean() for name, value in metrics.items()}

    def log_weights(self, batch: Batch, count: int, scale: DrawScale | None = None) -> Tensor:
        """log p(x, h) / q(h | x) for `count` draws of h for each example, (count, B).

        With `scale`, as Tucker et al. (Eq. 8) want it differentiated: q's own numbers are constants in its density, and
        what reaches them through a draw is multiplied by `scale`.
        """
        x = batch[self.spec.key]
        first_dim = self.lower_dim or self.latent_dim

        def noise(dim: int) -> Tensor:
            return batch.random.normal(count, dim).transpose(0, 1)  # (count, B, dim)

        q = self.posterior(x)
        draw = reparameterise(*q, noise(first_dim))
        h = scale(draw) if scale else draw
        if scale:
            q = tuple(part.detach() for part in q)
        ratio = -log_normal(h, *q)
        if self.lower_dim:
            q_upper = self.upper_encoder(draw).chunk(2, dim=-1)
            top = reparameterise(*q_upper, noise(self.latent_dim))
            if scale:
                top, q_upper = scale(top), self._upper_posterior_of_constants(h)
            p_lower = self.upper_decoder(top).chunk(2, dim=-1)
            ratio = ratio + log_standard_normal(top) - log_normal(top, *q_upper) + log_normal(h, *p_lower)
        else:
            ratio = ratio + log_standard_normal(h)
        nll = self.likelihood.nll(self.decoder(h.flatten(0, 1)), x.flatten(1).repeat(count, 1))
        return ratio - nll.unflatten(0, (count, -1))

    def _upper_posterior_of_constants(self, h: Tensor) -> tuple[Tensor, ...]:
        """q(h2 | h1) whose weights are constants, not h1."""
        weights = {name: value.detach() for name, value in self.upper_encoder.named_parameters()}
        return functional_call(self.upper_encoder, weights, h).chunk(2, dim=-1)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *shape) to the mean and the log variance of the layer next to the data, (B, first_dim) each."""
        mu, logvar = self.encoder(flatten_to_unit(x, self.spec.value_range)).float().chunk(2, dim=1)
        return mu, logvar

    def sample(self, random: RowRandom, *, noise: bool = False) -> Tensor:
        """The mean of p(x | h1) for h drawn from the prior; with `noise`, a draw from p(x | h1)."""
        h = self.draw_latent(random)
        if self.lower_dim:
            h = reparameterise(*self.upper_decoder(h).chunk(2, dim=-1), random.normal(self.lower_dim))
        output = self.decoder(h)
        x = self.likelihood.draw(output, random) if noise else self.likelihood.mean(output)
        return x.unflatten(1, self.spec.shape)

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        h = self.upper_decoder(latent).chunk(2, dim=-1)[0] if self.lower_dim else latent
        return self.likelihood.mean(self.decoder(h)).unflatten(1, self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        mu, _ = self.posterior(x)
        return self.upper_encoder(mu).chunk(2, dim=-1)[0] if self.lower_dim else mu

    def evaluate(self, batch: Batch, *, importance_samples: NonNegativeInt = 0) -> Metrics:
        """The bound of training with its k; with `importance_samples`, also that of as many draws."""
        log_weights = self.log_weights(batch, self.k)
        figures = {"negative_bound": -log_mean_exp(log_weights), "negative_elbo": -log_weights.mean(0)}
        figures |= self.likelihood.in_bits(figures["negative_bound"], self.spec)
        return figures | bound_of_draws(partial(self.log_weights, batch), importance_samples)

    def statistics(self, batch: Batch) -> dict[str, float]:
        """How much of the code is in use, of the layer next to the data and of that above it."""
        figures = super().statistics(batch)
        if self.lower_dim:
            q = self.posterior(batch[self.spec.key])
            figures["active_units_upper"] = active_units(*(self._upper_mean(*q, batch.random) for _ in range(2)))
        return figures

    def _upper_mean(self, mu: Tensor, logvar: Tensor, random: RowRandom) -> Tensor:
        """E[h2 | x] for q(h1 | x) = N(mu, exp(logvar)), by draws of h1: (B, latent_dim)."""
        lower = (reparameterise(mu, logvar, random.normal(self.lower_dim)) for _ in range(UPPER_DRAWS))
        return sum(self.upper_encoder(h).chunk(2, dim=-1)[0] for h in lower) / UPPER_DRAWS

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions from the mean of q."""
        x = batch[self.spec.key]
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x)))}
