"""Facts about flows: they invert, their log-determinant is the Jacobian's, their densities integrate to one."""

import itertools
import math

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.flow import Flow
from genai_cli.nn.dequantise import dequantise, inverse_logit, logit, quantise
from genai_cli.nn.flow import Coupling
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.schema import ConfigError, check_train

PRESETS = {
    "realnvp": {"coupling": "affine", "mixing": "alternating"},
    "glow": {"coupling": "affine", "mixing": "linear"},
    "nsf": {"coupling": "spline", "mixing": "linear"},
}
POINTS = Spec("points", (3,))
IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))
COLOUR = Spec("image", (3, 8, 8), value_range=(-1.0, 1.0))
each_preset = pytest.mark.parametrize("preset", PRESETS)


def flow(preset: str, spec: Spec, **options) -> Flow:
    """With weights far from those at the beginning, where couplings do nothing."""
    torch.manual_seed(0)
    model = Flow(spec, **{"width": 12, "depth": 2, **PRESETS[preset], **options})
    for name, parameter in model.named_parameters():
        if "network" in name:
            torch.nn.init.normal_(parameter, std=0.3 if spec.modality == "points" else 0.1)
    return model.eval()


@each_preset
@pytest.mark.parametrize("spec", [POINTS, IMAGES, COLOUR], ids=["points", "grey", "colour"])
def test_the_inverse_is_exact_to_1e_5(preset, spec):
    model = flow(preset, spec)
    y = torch.randn(16, *spec.shape)
    latent, _ = model.flow(y)
    assert latent.shape == (16, model.latent_dim)
    torch.testing.assert_close(model.flow.inverse(latent), y, atol=1e-5, rtol=1e-5)
    drawn = torch.randn(16, model.latent_dim)
    torch.testing.assert_close(model.flow(model.flow.inverse(drawn))[0], drawn, atol=1e-4, rtol=1e-4)


@each_preset
@pytest.mark.parametrize("spec", [POINTS, IMAGES, Spec("points", (1,))], ids=["points", "grey", "line"])
def test_the_log_determinant_is_the_jacobians(preset, spec):
    model = flow(preset, spec).double()
    for x in torch.randn(3, 1, *spec.shape, dtype=torch.float64):
        _, log_det = model.flow(x)
        jacobian = torch.autograd.functional.jacobian(lambda x: model.flow(x)[0][0], x)
        expected = torch.linalg.slogdet(jacobian.reshape(model.latent_dim, model.latent_dim)).logabsdet
        torch.testing.assert_close(log_det[0], expected, atol=1e-9, rtol=1e-9)


@each_preset
def test_density_of_points_integrates_to_one(preset):
    line = torch.linspace(-12, 12, 24_001).unsqueeze(1)
    model = flow(preset, Spec("points", (1,)))
    assert total(model, line) * 0.001 == pytest.approx(1, abs=1e-3)
    axis = torch.linspace(-10, 10, 401)
    model = flow(preset, Spec("points", (2,)))
    assert total(model, torch.cartesian_prod(axis, axis)) * 0.05**2 == pytest.approx(1, abs=5e-3)


@torch.no_grad()
def total(model: Flow, grid: torch.Tensor) -> float:
    return (-model.density_nll(grid)).double().exp().sum().item()


@each_preset
def test_bounds_of_all_small_images_sum_to_one(preset):
    """Sum over x of E[p(u)] / levels^D = 1: noise, levels and the logit's slope are all accounted for.

    But for the mass that the flow puts where no u leads, for the logit is taken of 0.05 to 0.95.
    """
    model = flow(preset, Spec("image", (1, 2, 2), value_range=(-1.0, 1.0), levels=2), levels=1)
    images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).view(16, 1, 2, 2)
    batch = Batch({"image": images.repeat(4000, 1, 1, 1)}, BatchRandom(0, stop=64_000))
    with torch.no_grad():
        probability = (-model.nll(batch)).double().exp().view(4000, 16)
        y = model.flow.inverse(torch.randn(64_000, 4)).flatten(1)
    inside = (y.abs() < math.log(0.95 / 0.05)).all(1).double().mean().item()
    error = probability.sum(1).std().item() / math.sqrt(4000)
    assert error < 0.01 and inside > 0.9
    assert probability.sum(1).mean().item() == pytest.approx(inside, abs=4 * error + 0.004)


def test_bits_per_dim_of_uniform_noise_is_8():
    """Where the density of u is uniform, each of 256 levels costs 8 bits."""
    u = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(0))
    y, log_det = logit(u)
    log_density_of_y = -log_det  # of the y that a uniform u has
    nll = -log_density_of_y - log_det + 25 * math.log(256)
    torch.testing.assert_close(nll / (25 * math.log(2)), torch.full((4,), 8.0))
    torch.testing.assert_close(inverse_logit(y), u, atol=1e-5, rtol=0)


@pytest.mark.parametrize("levels", [2, 256])
def test_levels_survive_their_noise(levels):
    x = torch.linspace(-1, 1, levels).view(1, -1)
    for noise in (0.0, 0.5, 0.999):
        u = dequantise(x, torch.full_like(x, noise), value_range=(-1.0, 1.0), levels=levels)
        assert u.min() >= 0 and u.max() < 1
        torch.testing.assert_close(quantise(u, value_range=(-1.0, 1.0), levels=levels), x)


@each_preset
def test_images_decode_to_what_was_encoded(preset):
    model = flow(preset, IMAGES)
    x = torch.randint(0, 256, (8, 1, 4, 4)) / 127.5 - 1
    torch.testing.assert_close(model.decode(model.encode(x)), x, atol=1e-6, rtol=0)


@each_preset
def test_temperature_scales_the_latent(preset):
    model = flow(preset, POINTS)
    random = SampleRandom(0, range(5))
    latent = model.draw_latent(SampleRandom(0, range(5)))
    torch.testing.assert_close(model.sample(random, temperature=0.5), model.decode(0.5 * latent))
    cold = model.sample(SampleRandom(1, range(5)), temperature=0.0)
    torch.testing.assert_close(cold, cold[:1].expand(5, -1))


@each_preset
def test_under_bfloat16_only_the_networks_lose_digits(preset):
    model = flow(preset, IMAGES)
    y = torch.randn(4, 1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        latent, log_det = model.flow(y)
        assert latent.dtype == log_det.dtype == torch.float32
        torch.testing.assert_close(model.flow.inverse(latent), y, atol=1e-4, rtol=1e-4)


def test_activation_norm_is_set_by_the_first_batch_alone():
    model = Flow(POINTS, depth=1, mixing="alternating").train()
    norm = model.flow.chains[0].layers[0]
    first = 3 * torch.randn(500, 3) + torch.tensor([1.0, -2.0, 5.0])
    y, log_det = norm(first)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3))
    torch.testing.assert_close(log_det[0], -first.std(0, correction=0).log().sum())
    before = norm.mean.clone()
    norm(100 * first)
    assert torch.equal(norm.mean, before) and norm.is_set


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"model\.levels=3 halves the sides 3 times, but images of 28 x 28"):
        Flow(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0)), levels=3)
    with pytest.raises(ValueError, match=r"model\.levels=1 is of images, and these are points: leave it out"):
        Flow(POINTS, levels=1)
    with pytest.raises(ValueError, match=r"model\.token_mixing=true is of images, and these are points"):
        Flow(POINTS, token_mixing=True)
    values = {"dataset": {"name": "toy2d"}, "train": {"steps": 5}}
    with pytest.raises(ConfigError, match="num_bins belongs to coupling=spline"):
        check_train({**values, "model": {"name": "flow", "num_bins": 8}})


@each_preset
def test_every_class_has_latents_of_its_own(preset):
    model = flow(preset, Spec("points", (3,), classes=("a", "b")), conditional=True)
    for parameter in (model.mean, model.log_std):
        torch.nn.init.normal_(parameter)
    label = torch.tensor([0, 1, 0, 1])
    samples, noise = (draw(SampleRandom(5, range(4))) for draw in (model.sample, lambda random: random.normal(3)))
    latent, log_det = model.flow(samples)
    torch.testing.assert_close(latent, model.mean[label] + model.log_std[label].exp() * noise, atol=1e-3, rtol=1e-3)
    prior = torch.distributions.Normal(model.mean[label], model.log_std[label].exp())
    expected = -prior.log_prob(latent).sum(1) - log_det
    found = model.nll(Batch({"points": samples, "label": label}, BatchRandom(0, stop=4)))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(model.sample(SampleRandom(5, range(4)), label=1)[1], samples[1])


def test_classes_are_learned():
    """Two classes on either side: told which, 1 bit is saved, and samples are of the side asked for."""
    torch.manual_seed(0)
    model = Flow(Spec("points", (2,), classes=("left", "right")), depth=2, width=8, conditional=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(150):
        random = BatchRandom(step, stop=128)
        label = random.integers(2)
        x = 0.2 * random.normal(2) + torch.stack([4.0 * label - 2, 0 * label], 1)
        optimizer.zero_grad()
        loss = model.nll(Batch({"points": x, "label": label}, random)).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(1 + math.log(2 * math.pi * 0.04), abs=0.15)  # the entropy of one class
    for label in (0, 1):
        assert ((model.sample(SampleRandom(0, range(100)), label=label)[:, 0] > 0) == bool(label)).float().mean() > 0.98


def test_labels_need_classes():
    with pytest.raises(ValueError, match=r"model\.conditional=true needs data with labels"):
        Flow(POINTS, conditional=True)
    with pytest.raises(ValueError, match=r"label=1: .* train it with model\.conditional=true"):
        Flow(POINTS, **Flow.tiny).sample(SampleRandom(0, range(2)), label=1)


@pytest.mark.parametrize("is_mixed", [True, False])
def test_with_token_mixing_a_coupling_sees_the_whole_image(is_mixed):
    coupling = flow("glow", Spec("image", (1, 32, 32), value_range=(-1.0, 1.0)), token_mixing=is_mixed).flow.chains[0]
    coupling = next(layer for layer in coupling.layers if isinstance(layer, Coupling))
    x = torch.randn(1, 4, 16, 16, requires_grad=True)
    coupling(x)[0][0, 0, 0, 0].backward()  # of a corner that is changed
    kept = x.grad[0, 2:]  # channels that tell the network how
    assert (kept[:, :3, :3] != 0).all()
    assert (kept[:, 5:, 5:] != 0).all() == is_mixed and (kept[:, 5:, 5:] == 0).all() != is_mixed


@each_preset
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_a_scale_is_done_with_is_told_by_what_goes_on(preset, depth):
    chain = flow(preset, IMAGES, levels=2, depth=depth).flow.chains[0]
    x = torch.randn(2, 4, 2, 2)
    changed, _ = chain.layers[-1](x)
    assert torch.equal(changed[:, 2:], x[:, 2:])  # goes on
    assert (changed[:, :2] != x[:, :2]).all()  # is done
