"""Facts about the conditional VAE: the class reaches everything, and what z tells is not the class."""

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.cvae import CVAE
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0), classes=("dark", "light", "grey"))


def batch(count: int = 60) -> Batch:
    """Images of one shade for each class, and a little noise."""
    label = torch.arange(count) % 3
    shade = torch.tensor([-0.9, 0.9, 0.0])[label].view(-1, 1, 1, 1).expand(count, 1, 4, 4)
    noise = 0.05 * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return Batch({"image": shade + noise, "label": label}, BatchRandom(0, stop=count))


def test_samples_are_of_the_class_asked_for_or_of_each_in_turn():
    torch.manual_seed(0)
    model = CVAE(IMAGES, style_dim=2, width=16, likelihood="gaussian")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(batch())[0].backward()
        optimizer.step()
    shades = model.sample(SampleRandom(0, range(9))).flatten(1).mean(1)
    torch.testing.assert_close(shades, torch.tensor([-0.9, 0.9, 0.0]).repeat(3), atol=0.15, rtol=0)
    shades = model.sample(SampleRandom(0, range(5)), label=1).flatten(1).mean(1)
    torch.testing.assert_close(shades, torch.full((5,), 0.9), atol=0.15, rtol=0)
    # z need not say what the class says: next to nothing is left of log 3 nats.
    assert model.evaluate(batch())["kl"].mean() < 0.3


def test_a_latent_is_style_and_class():
    torch.manual_seed(0)
    model = CVAE(IMAGES, style_dim=2, width=8)
    latent = model.draw_latent(SampleRandom(0, range(4)))
    assert latent.shape == (4, model.latent_dim) == (4, 5)
    assert latent[:, 2:].argmax(1).tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(model.decode(latent), model.sample(SampleRandom(0, range(4))))


def test_data_without_labels_and_unknown_labels_are_refused():
    with pytest.raises(ValueError, match=r"model=cvae is conditioned on labels.*use model=vae"):
        CVAE(Spec("image", (1, 4, 4), value_range=(-1.0, 1.0)))
    with pytest.raises(ValueError, match="label=3 must be below 3"):
        CVAE(IMAGES, width=8).sample(SampleRandom(0, range(2)), label=3)


def test_codes_are_hand_and_class_and_decode_to_reconstructions():
    torch.manual_seed(0)
    model = CVAE(IMAGES, style_dim=2, width=16)
    codes = model.encode_rows(batch(8))
    assert codes.shape == (8, model.latent_dim)
    torch.testing.assert_close(codes[:, :2], model.posterior_of_rows(batch(8))[0])
    torch.testing.assert_close(codes[:, 2:], model.one_hot(batch(8)["label"]))
    shown = model.pictures(batch(8))["reconstruction"]
    torch.testing.assert_close(shown[4:8], model.decode(codes)[:4])
    with pytest.raises(ValueError, match=r"told the class of what it encodes: give label=0, say.* dark, light, grey"):
        model.encode_rows({"image": batch(8)["image"]})


def test_units_in_use_are_those_that_vary_with_the_images():
    torch.manual_seed(0)
    model = CVAE(IMAGES, style_dim=2, width=16)
    with torch.no_grad():
        last = model.posterior_head[1]
        last.weight[0] *= 30  # the mean of the first coordinate
        last.weight[1] = last.weight[3] = 0.0
        last.bias[3] = 0.0
        assert model.statistics(batch())["active_units"] == 1 and model.statistics(batch())["mutual_information"] > 0.1
        last.weight.zero_()
        silent = model.statistics(batch())
    assert silent["active_units"] == 0 and silent["mutual_information"] == pytest.approx(0, abs=1e-5)


def test_many_draws_tighten_the_bound():
    torch.manual_seed(0)
    figures = CVAE(IMAGES, style_dim=2, width=16).evaluate(batch(600), importance_samples=50)
    assert figures["negative_iw_bound_50"].mean() < figures["negative_elbo"].mean()


@pytest.mark.parametrize(("backbone", "expected"), [("mlp", 4), ("conv", 32), ("auto", 32)])
def test_convolutions_tell_the_code_more_than_they_have_channels(backbone, expected):
    spec = Spec("image", (1, 16, 16), (-1.0, 1.0), classes=("even", "odd"))
    model = CVAE(spec, style_dim=2, width=4, backbone=backbone)
    assert model.features(torch.zeros(3, 256)).shape == (3, expected)
