"""Likelihoods in their units: a fair coin, a uniform pixel, a bound above the exact value."""

import math

import pytest
import torch

from genai_cli.data.base import Batch, Spec, TensorSplit
from genai_cli.engine.figures import held_out_figures
from genai_cli.metrics.likelihood import (
    Meaning,
    bits_per_dim,
    bound_contradictions,
    loose_bounds,
    nats_to_bits,
    read_meaning,
)
from genai_cli.models.vae import VAE
from genai_cli.nn.random import SampleRandom


def test_a_fair_coin_for_each_of_784_pixels_scores_543_43_nats():
    """A VAE whose weights are all zero: every pixel a fair coin, whatever z, and q(z | x) the prior."""
    model = VAE(Spec("image", (1, 28, 28), (-1.0, 1.0)), width=8, latent_dim=2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    images = 2 * torch.randint(2, (30, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float() - 1
    split = TensorSplit({"image": images}, dict)
    figures = held_out_figures(model.eval(), split, seed=0, batch_size=7, device=torch.device("cpu"))
    nats = figures["negative_elbo"].mean
    assert nats == pytest.approx(784 * math.log(2), rel=1e-6) and f"{nats:.2f}" == "543.43"
    assert nats_to_bits(nats) == pytest.approx(784, rel=1e-6)


def test_uniform_pixels_have_8_bits_per_dimension():
    """A uniform density over the 256 levels and the noise of one level's width, in the units of [-1, 1]."""
    width = 256 * (2 / 255)
    assert bits_per_dim(100 * math.log(width), 100, value_range=(-1.0, 1.0)) == pytest.approx(8, rel=1e-12)


def test_bits_per_dimension_do_not_depend_on_the_range():
    """The same density over [0, 1] is twice as high: the Jacobian of the scaling takes that back."""
    nats, dims = 250.0, 100
    other = nats - dims * math.log(2)
    assert bits_per_dim(nats, dims, value_range=(-1.0, 1.0)) == pytest.approx(
        bits_per_dim(other, dims, value_range=(0.0, 1.0)), rel=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_bound_is_never_below_the_exact_value(seed):
    """The VAE's bound, averaged over draws of z, against -log of the integral of p(x | z) p(z) over z."""
    torch.manual_seed(seed)
    model = VAE(Spec("points", (2,)), width=16, latent_dim=1).eval()
    x = torch.randn(5, 2)
    z = torch.linspace(-8, 8, 4001)
    with torch.no_grad():
        output = model.decoder(z[:, None])
        for row in x:
            log_likelihood = -model.likelihood.nll(output, row.expand(len(z), 2)).double()
            log_prior = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
            exact = -(torch.logsumexp(log_likelihood + log_prior, 0) + math.log(z[1] - z[0])).item()
            draws = Batch({"points": row.expand(4000, 2)}, SampleRandom(seed, range(4000)))
            bound = model.evaluate(draws)["negative_elbo"]
            assert bound.mean().item() > exact - 1e-4 - 3 * bound.std().item() / 4000**0.5


def test_words_of_a_figure_are_taken_apart():
    assert read_meaning("nll", None) == Meaning("nats", "exact", "lower", False)
    assert read_meaning("nll", "nats per token, exact -log p(x)").unit == "nats per token"
    flow = read_meaning("nll", "nats, upper bound on -log P(x), density of dequantised data")
    assert flow.bound == "upper bound" and flow.is_dequantised_density
    assert read_meaning("kl", None).better == "none"
    assert read_meaning("bound", None, is_tokens=True).unit == "nats per token"
    assert read_meaning("negative_iw_bound_5000", None).bound == "upper bound"
    unknown = read_meaning("wobble", None)
    assert unknown.bound is None and unknown.better == "none" and not unknown.is_likelihood


def test_a_bound_below_the_exact_value_is_a_contradiction():
    meanings = {"nll": read_meaning("nll", None), "negative_elbo": read_meaning("negative_elbo", None)}
    tolerance = {"nll": 0.1, "negative_elbo": 0.1}
    (found,) = bound_contradictions({"nll": 90.0, "negative_elbo": 85.0}, meanings, tolerance)
    assert found.startswith("negative_elbo: an upper bound of 85 below the exact nll of 90")
    assert not bound_contradictions({"nll": 90.0, "negative_elbo": 95.0}, meanings, tolerance)


def test_a_figure_may_be_better_higher():
    share = read_meaning("exact", "share of responses that greedy decoding gives exactly, higher is better")
    assert share.better == "higher" and not share.is_likelihood
    assert share.unit == "share of responses that greedy decoding gives exactly"
    assert read_meaning("error", "share of responses").better == "lower"


def test_a_bound_that_a_better_one_shows_to_be_loose_is_flagged():
    keys = ("negative_elbo", "negative_iw_bound_50", "reconstruction", "kl")
    meanings = {key: read_meaning(key, None) for key in keys}
    found = loose_bounds(dict(zip(keys, (104.0, 99.0, 80.0, 24.0), strict=True)), meanings)
    assert found == {"negative_elbo": "the bound is loose: negative_iw_bound_50 is 5 nats lower; quote that one"}
    assert not loose_bounds(dict(zip(keys, (99.5, 99.0, 80.0, 24.0), strict=True)), meanings)
