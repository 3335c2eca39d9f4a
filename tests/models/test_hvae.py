"""Facts about the hierarchical VAE: its density sums to one, its KL term is the mean of its log ratios."""

import math

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.hvae import HierarchicalVAE, latent_sides
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 8, 8), value_range=(-1.0, 1.0))


def build(spec: Spec = IMAGES, **options: object) -> HierarchicalVAE:
    """With all its branches awake, which start as nothing."""
    torch.manual_seed(0)
    model = HierarchicalVAE(spec, width=8, latent_channels=2, depth=1, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.mark.parametrize("inference", ["deep", "ladder"])
def test_the_density_sums_to_one(inference):
    """Over all images of 2 x 2 black or white pixels, by many draws from the posterior."""
    spec = Spec("image", (1, 2, 2), value_range=(-1.0, 1.0))
    x = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).view(16, 1, 2, 2)
    with torch.no_grad():
        batch = Batch({"image": x}, BatchRandom(0, stop=16))
        figures = build(spec, inference=inference).evaluate(batch, importance_samples=3000)
    assert (-figures["negative_iw_bound_3000"]).exp().sum().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("inference", ["deep", "ladder"])
def test_the_bound_is_the_mean_of_log_weights(inference):
    model = build(inference=inference)
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(7)).sign()
    count = 4000
    with torch.no_grad():
        bound = -model.evaluate(Batch({"image": image.expand(count, 1, 8, 8)}, BatchRandom(0, stop=count)))[
            "negative_elbo"
        ]
        log_weights = model._log_weights(Batch({"image": image}, BatchRandom(1, stop=1)), count)
    error = math.hypot(bound.std().item(), log_weights.std().item()) / math.sqrt(count)
    assert bound.mean().item() == pytest.approx(log_weights.mean().item(), abs=4 * error)


def test_the_shares_of_the_sides_add_up():
    image = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7)).sign()
    figures = build().evaluate(Batch({"image": image}, BatchRandom(0, stop=3)))
    assert latent_sides(IMAGES) == [1, 4]
    torch.testing.assert_close(figures["kl_1"] + figures["kl_4"], figures["kl"])


def test_the_weight_of_the_coarsest_map_rises_in_training():
    model, weights = build(beta_warmup=4), []

    class Step:
        def minimize(self, group, loss):
            value, terms = loss(Batch({"image": torch.ones(2, 1, 8, 8)}, BatchRandom(0, stop=2)))
            weights.append(((value - terms["reconstruction"] - terms["kl_4"]) / terms["kl_1"]).item())

    for number in range(6):
        step = Step()
        step.number = number
        model.train_step(step)
    assert weights == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1], rel=1e-3)


def test_in_the_warm_up_the_coarsest_map_speaks_for_nothing():
    image = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7)).sign()
    model = build()
    for warmth, weight in ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0)):
        loss, terms = model.loss(Batch({"image": image}, BatchRandom(0, stop=3)), warmth=warmth)
        torch.testing.assert_close(loss, terms["reconstruction"] + weight * terms["kl_1"] + terms["kl_4"])


def test_the_coarsest_map_knows_where_a_stroke_is():
    """Two dots far from the border have the same features, four pixels apart: an average of them would be the same."""
    model = build(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0)))
    image = torch.full((2, 1, 28, 28), -1.0)
    image[0, 0, 9, 9] = image[1, 0, 13, 13] = 1.0
    _, latents = model.infer(image, lambda *shape: torch.zeros(2, *shape))
    coarsest = latents[0].mu
    assert coarsest.shape[2:] == (1, 1)
    assert (coarsest[0] - coarsest[1]).abs().max() > 1e-3 * coarsest.abs().max()


def test_without_temperature_all_samples_are_one():
    model = build()
    samples = model.sample(SampleRandom(0, range(4)), temperature=0.0)
    torch.testing.assert_close(samples, samples[:1].expand(4, 1, 8, 8))
    assert model.sample(SampleRandom(0, range(4))).std(0).max() > 0.01


def test_sides_are_named_and_odd_ones_refused():
    assert latent_sides(Spec("image", (3, 32, 32))) == [1, 4, 8, 16]
    assert latent_sides(Spec("image", (1, 28, 28))) == [1, 7, 14]
    with pytest.raises(ValueError, match="square images with an even side, not 9x9"):
        HierarchicalVAE(Spec("image", (1, 9, 9), (-1.0, 1.0)))


def test_codes_are_the_means_of_all_latent_maps():
    image = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7)).sign()
    model = build()
    codes = model.encode_rows({"image": image})
    assert codes.shape == (3, 2 * (1 + 4 * 4))
    _, (coarsest, finest) = model.infer_means(image)
    torch.testing.assert_close(codes, torch.cat([coarsest.z.flatten(1), finest.z.flatten(1)], 1))
    assert not model.has_posterior


@pytest.mark.parametrize("inference", ["deep", "ladder"])
def test_units_in_use_are_those_of_which_data_say_more_than_coarser_maps(inference):
    image = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(7)).sign()
    model = build(inference=inference)
    finest = model.top_down.blocks[-1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        said = model.statistics(Batch({"image": image}, BatchRandom(0, stop=64)))
        assert 0 < said["active_units_1"] <= 2 and 0 < said["active_units_4"] <= 2 * 4 * 4
        if inference == "deep":  # the posterior becomes the prior, which follows the coarser map
            finest.posterior.forward = lambda parts: finest.prior(parts[:, :8])[:, :4]
        else:
            finest.posterior.forward = lambda features: torch.cat([0 * features[:, :2], 40 + 0 * features[:, :2]], 1)
        silent = model.statistics(Batch({"image": image}, BatchRandom(0, stop=64)))
    assert silent["active_units_1"] == said["active_units_1"]
    assert silent["active_units_4"] == 0
