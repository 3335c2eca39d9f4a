"""Facts about codes that an image must tell."""

import math

import pytest
import torch
from torch.distributions import Normal

from genai_cli.data.base import Batch, Spec
from genai_cli.models.infogan import InfoGAN
from genai_cli.nn.random import BatchRandom, SampleRandom

SPEC = Spec("image", (1, 16, 16), value_range=(-1.0, 1.0))


def build(**options: float) -> InfoGAN:
    torch.manual_seed(0)
    return InfoGAN(SPEC, noise_dim=3, categories=4, continuous=2, width=4, **options)


def test_the_prior_of_a_code():
    model = build()
    latent = model.draw_latent(BatchRandom(0, stop=4000))
    noise, category, numbers = model.split(latent)
    assert latent.shape == (4000, model.latent_dim) and model.latent_dim == 9
    assert (category.sum(1) == 1).all() and ((category == 0) | (category == 1)).all()
    torch.testing.assert_close(category.mean(0), torch.full((4,), 0.25), atol=0.03, rtol=0)
    assert numbers.min() >= -1 and numbers.max() < 1
    torch.testing.assert_close(numbers.var(0), torch.full((2,), 1 / 3), atol=0.02, rtol=0)
    torch.testing.assert_close(noise.std(0), torch.ones(3), atol=0.05, rtol=0)


def test_a_guess_that_knows_has_all_information_and_one_that_does_not_none():
    model = build()
    latent = model.draw_latent(BatchRandom(0, stop=2000))
    _, category, numbers = model.split(latent)
    sure = torch.cat([100 * category, numbers, torch.full_like(numbers, -4.0)], dim=1)
    blind = torch.zeros_like(sure)
    _, knows = model.miss(latent, None, sure)
    _, guesses = model.miss(latent, None, blind)
    assert knows["category_information"].item() == pytest.approx(math.log(4), abs=1e-4)
    assert guesses["category_information"].item() == pytest.approx(0, abs=1e-4)
    # The least informed guess of a number in [-1, 1] that is a Gaussian has its variance, 1/3, and loses 0.176 nats.
    assert guesses["continuous_information"] < 0 < knows["continuous_information"]


def test_the_loss_is_the_likelihood_of_the_code():
    model = build()
    latent, guess = model.draw_latent(BatchRandom(0, stop=6)), torch.randn(6, 8)
    _, category, numbers = model.split(latent)
    category_nll, continuous_nll = model.code_nll(latent, guess)
    expected = -guess[:, :4].log_softmax(1)[category.bool()]
    torch.testing.assert_close(category_nll, expected)
    logvar = 6 * torch.tanh(guess[:, 6:] / 6)
    density = Normal(guess[:, 4:6], (0.5 * logvar).exp()).log_prob(numbers).sum(1)
    torch.testing.assert_close(continuous_nll, -density)
    loss, _ = model.miss(latent, None, guess)
    torch.testing.assert_close(loss, category_nll.mean() + 0.1 * continuous_nll.mean())
    loss, _ = build(category_weight=3.0, continuous_weight=0.5).miss(latent, None, guess)
    torch.testing.assert_close(loss, 3 * category_nll.mean() + 0.5 * continuous_nll.mean())


def test_held_out_information_is_that_of_training():
    model = build().eval()
    latent = model.draw_latent(BatchRandom(0, stop=6))
    _, expected = model.miss(latent, None, model.discriminator(model.decode(latent))[:, 1:])
    figures = model.evaluate(Batch({}, BatchRandom(0, stop=6)))
    assert figures.keys() == expected.keys() and all(figure.shape == (6,) for figure in figures.values())
    for name, figure in figures.items():
        torch.testing.assert_close(figure.mean(), expected[name])


def test_both_players_raise_the_information():
    """The term reaches the discriminator's turn (whose head Q is) and, by way of the image, the generator's."""
    model = build()
    batch = Batch({"image": torch.rand(6, 1, 16, 16)}, BatchRandom(0, stop=6))
    head = model.discriminator[-1]
    for loss, group in ((model.discriminator_loss, "discriminator"), (model.generator_loss, "generator")):
        with torch.no_grad():
            head.weight[0].zero_()  # D's own output says nothing: what is left is the code's
        value, metrics = loss(batch)
        gradients = torch.autograd.grad(value, list(model.parameter_groups()[group]))
        assert any(gradient.abs().max() > 1e-6 for gradient in gradients)
        assert {"category_information", "continuous_information"} <= set(metrics)


def test_samples_of_one_category():
    model = build().eval()
    with torch.no_grad():
        for category in range(4):
            samples = model.sample(SampleRandom(0, range(5)), category=category)
            noise, _, numbers = model.split(model.draw_latent(SampleRandom(0, range(5))))
            code = torch.eye(4)[category].expand(5, -1)
            torch.testing.assert_close(samples, model.decode(torch.cat([noise, code, numbers], dim=1)))
    with pytest.raises(ValueError, match="category=4 must be below 4"):
        model.sample(SampleRandom(0, range(2)), category=4)
