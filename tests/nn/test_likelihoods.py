"""Facts about likelihoods: nats are those of torch.distributions, draws follow them, senseless choices are refused."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal

from genai_cli.data.base import Spec
from genai_cli.nn.likelihoods import Gaussian, build_likelihood
from genai_cli.nn.random import BatchRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))
COLOURS = Spec("image", (3, 2, 2), value_range=(-1.0, 1.0))
FOUR_LEVELS = Spec("image", (3, 2, 2), value_range=(-1.0, 1.0), levels=4)
POINTS = Spec("points", (3,))


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def test_bernoulli_nats_are_those_of_coins():
    likelihood = build_likelihood("bernoulli", IMAGES)
    output = seeded(5, 16)
    x = (seeded(5, 16) > 0).float() * 2 - 1
    expected = -Bernoulli(logits=output).log_prob((x + 1) / 2).sum(1)
    torch.testing.assert_close(likelihood.nll(output, x), expected)
    # A fair coin for each of 16 pixels.
    torch.testing.assert_close(likelihood.nll(torch.zeros(1, 16), x[:1]), torch.tensor([16 * math.log(2)]))


def test_a_decoder_at_rest_says_the_mean_of_the_first_batch():
    likelihood = build_likelihood("bernoulli", IMAGES, from_mean=True)
    x = (seeded(40, 16) > 1).float() * 2 - 1
    rest = torch.zeros(40, 16)
    likelihood.eval().nll(rest, x)
    torch.testing.assert_close(likelihood.mean(rest[:1]), rest[:1])  # what is held out is not learned
    likelihood.train().nll(rest, x)
    torch.testing.assert_close(likelihood.mean(rest[:1])[0], 0.96 * x.mean(0))
    likelihood.nll(rest, -x)
    torch.testing.assert_close(likelihood.mean(rest[:1])[0], 0.96 * x.mean(0))
    expected = -Bernoulli(logits=likelihood.log_odds + 1).log_prob((x + 1) / 2).sum(1)
    torch.testing.assert_close(likelihood.nll(rest + 1, x), expected)


@pytest.mark.parametrize("spec", [IMAGES, POINTS])
@pytest.mark.parametrize("sigma", ["learned", math.exp(-0.7)])
def test_gaussian_nats_are_a_density_per_unit_of_the_data(spec, sigma):
    likelihood = build_likelihood("gaussian", spec, sigma=sigma)
    if sigma == "learned":
        nn.init.constant_(likelihood.log_sigma, -0.7)
    assert isinstance(likelihood.log_sigma, nn.Parameter) == (sigma == "learned")
    output, x = seeded(2, 5, math.prod(spec.shape))
    mean = output.tanh() if spec.value_range else output
    expected = -Normal(mean, math.exp(-0.7)).log_prob(x).sum(1)
    torch.testing.assert_close(likelihood.nll(output, x), expected)


def test_the_optimal_sigma_is_the_best_of_all():
    """No fixed sigma gives a batch fewer nats, the gradient is that through sigma, and evaluation remembers it."""
    likelihood = build_likelihood("gaussian", POINTS, sigma="optimal")
    output, x = seeded(2, 500, 3)
    output.requires_grad_()
    best = likelihood.nll(output, x).mean()
    rms = (x - output).square().mean().sqrt()
    for factor in (0.9, 1.0, 1.1):
        fixed = build_likelihood("gaussian", POINTS, sigma=(factor * rms).item()).nll(output, x).mean()
        assert fixed.item() == pytest.approx(best.item(), abs=1e-5) if factor == 1.0 else fixed > best
    through_sigma = 3 * rms.log()  # D log sigma*, the rest being constant
    torch.testing.assert_close(*(torch.autograd.grad(value, output)[0] for value in (best, through_sigma)))
    for _ in range(300):
        likelihood.nll(output, x)
    likelihood.eval()
    torch.testing.assert_close(likelihood.nll(output, x).mean(), best)


def test_categorical_nats_are_those_of_torch():
    likelihood = build_likelihood("categorical", FOUR_LEVELS)
    output = seeded(5, likelihood.num_outputs)
    level = torch.randint(4, (5, 12), generator=torch.Generator().manual_seed(0))
    logits = output.unflatten(1, (4, 12)).transpose(1, 2)
    expected = -Categorical(logits=logits).log_prob(level).sum(1)
    torch.testing.assert_close(likelihood.nll(output, level * (2 / 3) - 1), expected)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "logistic", "categorical"])
def test_draws_average_to_the_mean(name):
    likelihood = build_likelihood(name, COLOURS)
    output = (0.3 * seeded(1, likelihood.num_outputs)).expand(4000, -1)
    if name == "logistic":  # narrow, so that little is cut at the ends of the range
        output = output.unflatten(1, (10, 10, 4)).clone()
        output[:, :, 4:7] = -4
        output = output.flatten(1)
    drawn = likelihood.draw(output, BatchRandom(0, stop=4000))
    assert drawn.shape == (4000, 12) and drawn.abs().max() <= 1
    torch.testing.assert_close(drawn.mean(0), likelihood.mean(output)[0], atol=0.07, rtol=0)
    values = (drawn + 1) / 2 * (1 if name == "bernoulli" else 255)
    if name != "gaussian":
        torch.testing.assert_close(values, values.round(), atol=1e-3, rtol=0)


ONE_EXAMPLE = {  # of each kind of data with levels, with few enough numbers to list all that they can be
    "grey": Spec("image", (1, 1, 1), (-1.0, 1.0)),
    "black and white": Spec("image", (1, 2, 2), (-1.0, 1.0), levels=2),
    "two channels": Spec("image", (2, 1, 1), (-1.0, 1.0)),
    "colour": Spec("image", (3, 1, 1), (0.0, 1.0), levels=8),
    "colour of two levels": Spec("image", (3, 1, 2), (-1.0, 1.0), levels=2),
    "rolls": Spec("rolls", (2, 3), (0.0, 1.0), levels=2),
    "points": Spec("points", (1,), (0.0, 1.0)),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in ("logistic", "categorical")
        for kind, spec in ONE_EXAMPLE.items()
        if name == "categorical" or len(spec.shape) == 3
    ],
)
def test_the_probabilities_of_all_that_data_can_be_sum_to_one(name, kind):
    spec = ONE_EXAMPLE[kind]
    likelihood = build_likelihood(name, spec)
    low, high = spec.value_range
    values = torch.linspace(low, high, spec.levels)
    x = torch.cartesian_prod(*[values] * math.prod(spec.shape)).view(-1, math.prod(spec.shape))
    nll = likelihood.nll(seeded(1, likelihood.num_outputs).expand(len(x), -1), x)
    assert (-nll.double()).exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["logistic", "categorical"])
@pytest.mark.parametrize("levels", [2, 256])
def test_levels_are_those_of_the_data_and_no_others(name, levels):
    spec = Spec("image", (1, 4, 4), (-1.0, 1.0), levels=levels)
    assert build_likelihood(name, spec).levels == build_likelihood(name, spec, levels=levels).levels == levels
    other = 258 - levels
    with pytest.raises(ValueError, match=f"model.levels={other}, but these data have {levels} levels: leave it out"):
        build_likelihood(name, spec, levels=other)


def test_runs_from_when_levels_were_256_by_default_are_read():
    """Of likelihoods that have no levels, too, whatever the data."""
    for spec in (IMAGES, POINTS, Spec("image", (1, 4, 4), (-1.0, 1.0), levels=2)):
        build_likelihood("auto", spec, levels=256)


def test_data_without_a_range_are_gaussian():
    assert isinstance(build_likelihood("auto", POINTS), Gaussian)
    assert not isinstance(build_likelihood("auto", IMAGES), Gaussian)


@pytest.mark.parametrize(
    ("name", "spec", "options", "words"),
    [
        ("bernoulli", POINTS, {}, "model.likelihood=bernoulli .* use model.likelihood=gaussian"),
        ("logistic", Spec("points", (3,), (0.0, 1.0)), {}, "likelihood=logistic is of pixels"),
        ("bernoulli", IMAGES, {"sigma": "optimal"}, "model.sigma=optimal is read by"),
        ("auto", IMAGES, {"levels": 16}, "model.levels=16 is read by"),
    ],
)
def test_what_would_not_be_read_is_refused(name, spec, options, words):
    with pytest.raises(ValueError, match=words):
        build_likelihood(name, spec, **options)


def test_the_mean_of_bounded_real_numbers_is_cut_off_where_it_is_shown():
    """The density knows of no ends: a mean beyond them is told as it is."""
    spec = Spec("series", (2, 1), (0.0, 1.0), columns=("a",))
    likelihood = build_likelihood("auto", spec, sigma=0.5)
    output, x = torch.tensor([[-0.3, 1.4]]), torch.tensor([[0.0, 1.0]])
    assert likelihood.mean(output).tolist() == [[0.0, 1.0]]
    expected = -Normal(output, 0.5).log_prob(x).sum(1)
    torch.testing.assert_close(likelihood.nll(output, x), expected)
    with pytest.raises(ValueError, match="series are real numbers: use gaussian"):
        build_likelihood("bernoulli", spec)


def test_bits_are_of_whole_levels_alone():
    """A uniform choice among 4 levels costs 2 bits for each number."""
    nll = torch.tensor([12 * math.log(4)])
    levels = build_likelihood("categorical", FOUR_LEVELS)
    torch.testing.assert_close(levels.nll(torch.zeros(1, levels.num_outputs), torch.ones(1, 12)), nll)
    torch.testing.assert_close(levels.in_bits(nll, FOUR_LEVELS), {"bits_per_dim": torch.tensor([2.0])})
    assert build_likelihood("gaussian", COLOURS).in_bits(nll, COLOURS) == {}
