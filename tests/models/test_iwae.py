"""Facts about the importance-weighted autoencoder: k = 1 is the ELBO, more draws tighten, its gradient is Eq. 14."""

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.iwae import IWAE
from genai_cli.nn.importance import DrawScale
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))


def batch(count: int = 6, seed: int = 0) -> Batch:
    image = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(7)).sign()
    return Batch({"image": image}, BatchRandom(seed, stop=count))


def build(**options: object) -> IWAE:
    torch.manual_seed(0)
    return IWAE(IMAGES, width=8, latent_dim=2, **options)


@pytest.mark.parametrize("lower_dim", [None, 3])
def test_one_draw_is_the_elbo(lower_dim):
    model = build(k=1, lower_dim=lower_dim)
    loss, metrics = model.loss(batch())
    torch.testing.assert_close(loss, metrics["negative_elbo"])
    assert metrics["effective_draws"].item() == pytest.approx(1)


@pytest.mark.parametrize("lower_dim", [None, 3])
def test_more_draws_tighten_the_bound(lower_dim):
    model = build(k=5, lower_dim=lower_dim)
    figures = model.evaluate(batch(2000), importance_samples=200)
    elbo, five, many = (-figures[key].mean() for key in ("negative_elbo", "negative_bound", "negative_iw_bound_200"))
    assert elbo < five < many


def test_the_gradient_weighs_each_draw_by_its_normalised_ratio():
    """Eq. 14: sum_i w~_i grad log w_i."""
    model = build(k=4)
    loss, _ = model.loss(batch())
    log_weights = model.log_weights(batch(), 4)
    expected = -(log_weights.softmax(0).detach() * log_weights).sum(0).mean()
    for value, other in zip(gradients(model, loss), gradients(model, expected), strict=True):
        torch.testing.assert_close(value, other)


def gradients(model: IWAE, value: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, list(model.parameters()))


def test_two_layers_have_a_density_that_sums_to_one():
    """p(x) by many draws from q, summed over all images of four black or white pixels."""
    torch.manual_seed(0)
    spec = Spec("image", (1, 2, 2), value_range=(-1.0, 1.0))
    model = IWAE(spec, width=8, latent_dim=2, lower_dim=3, k=1)
    x = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).view(16, 1, 2, 2)
    with torch.no_grad():
        figures = model.evaluate(Batch({"image": x}, BatchRandom(0, stop=16)), importance_samples=4000)
    assert (-figures["negative_iw_bound_4000"]).exp().sum().item() == pytest.approx(1, abs=0.02)


def test_samples_of_two_layers_draw_the_lower_one():
    model = build(lower_dim=3)
    assert not torch.allclose(
        model.sample(SampleRandom(0, range(4))), model.decode(model.draw_latent(SampleRandom(0, range(4))))
    )


@pytest.mark.parametrize("lower_dim", [None, 3])
def test_the_doubly_reparameterised_gradient_has_the_mean_of_the_standard_one(lower_dim):
    """Tucker et al. 2019 (arXiv:1810.04152): one estimates what the other does, here each by 60,000 times two draws."""
    model = build(k=2, lower_dim=lower_dim)
    once = batch(1)["image"].expand(60_000, 1, 4, 4)

    def mean_gradient(kind: str) -> tuple[Tensor, ...]:
        model.gradient = kind
        loss, _ = model.loss(Batch({"image": once}, BatchRandom(3, stop=len(once))))
        return gradients(model, loss)

    standard, doubly = mean_gradient("standard"), mean_gradient("doubly")
    names = [name for name, _ in model.named_parameters()]
    for name, one, other in zip(names, standard, doubly, strict=True):
        if "encoder" in name:
            assert not torch.equal(one, other), name
            assert (one - other).norm() < 0.08 * one.norm() + 2e-3, name
        else:
            torch.testing.assert_close(one, other, msg=name)


@pytest.mark.parametrize("lower_dim", [None, 3])
def test_the_doubly_reparameterised_gradient_squares_the_weights(lower_dim):
    """Eq. 8: sum_i w~_i^2 d log w_i / dh_i dh_i / dphi, in both layers. A scale of 1 leaves the rest."""
    model = build(k=4, lower_dim=lower_dim, gradient="doubly")
    encoders = [weight for name, weight in model.named_parameters() if "encoder" in name]
    scale = DrawScale()
    log_weights = model.log_weights(batch(), 4, scale)
    scale.weights = torch.ones_like(log_weights)
    shares = log_weights.softmax(0).detach()
    expected = torch.autograd.grad(-(shares.square() * log_weights).sum(0).mean(), encoders)
    for value, other in zip(torch.autograd.grad(model.loss(batch())[0], encoders), expected, strict=True):
        torch.testing.assert_close(value, other)


def test_the_doubly_reparameterised_gradient_of_many_draws_is_less_noisy():
    """Noise over mean of the encoder's gradients: it grows with k for the standard one, and shrinks for this."""
    model = build(k=50)

    def noise_over_mean(kind: str) -> float:
        model.gradient = kind
        drawn = []
        for seed in range(40):
            loss, _ = model.loss(batch(seed=seed))
            drawn.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.encoder.parameters()))]))
        drawn = torch.stack(drawn)
        return (drawn.std(0).norm() / drawn.mean(0).norm()).item()

    assert noise_over_mean("doubly") < 0.5 * noise_over_mean("standard")


def test_units_of_the_upper_layer_are_counted_too():
    """Two of three numbers of h1 follow the data; h2 has one that follows h1, and one that is always the same."""
    model = build(lower_dim=3)
    model.encoder, model.upper_encoder = nn.Linear(16, 6), nn.Linear(3, 4)
    with torch.no_grad():
        for layer in (model.encoder, model.upper_encoder):
            layer.weight.zero_()
            layer.bias.zero_()
        model.encoder.weight[0, 0] = model.encoder.weight[1, 1] = model.upper_encoder.weight[0, 0] = 1.0
        assert model.statistics(batch(200))["active_units"] == 2
        assert model.statistics(batch(200))["active_units_upper"] == 1
        model.encoder.weight.zero_()  # h2 follows the noise of h1, which is no data
        assert model.statistics(batch(200))["active_units_upper"] == 0
    assert "active_units_upper" not in build().statistics(batch())
