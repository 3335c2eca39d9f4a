"""Facts about the parts of BigGAN."""

import pytest
import torch
from torch import nn

from genai_cli.data.base import Batch, Spec
from genai_cli.engine.sampling import draw
from genai_cli.models.biggan import BigGAN, overlap
from genai_cli.nn.paths import PathRandom
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.nn.regularizers import spectrally_normalise
from genai_cli.nn.resnet_gan import SelfAttention, UpBlock

SPEC = Spec("image", (1, 28, 28), value_range=(-1.0, 1.0), classes=("a", "b", "c"))


def build(**options) -> BigGAN:
    torch.manual_seed(0)
    return BigGAN(SPEC, **{"latent_dim": 4, "class_dim": 4, "width": 2, **options})


def test_a_number_of_a_class_is_as_loud_as_one_of_z():
    assert build(class_dim=512).classes.weight.std().item() == pytest.approx(1.0, abs=0.1)


def test_truncation_is_an_option_of_sampling():
    model = build().eval()
    with torch.no_grad():
        whole, narrow = (model.sample(SampleRandom(0, range(30)), label=0, truncation=t) for t in (None, 0.01))
    assert narrow.std(0).mean() < 0.2 * whole.std(0).mean()


def test_truncated_samples_lie_on_paths_too():
    """They end in truncated samples, and differ from stop to stop."""
    model, settings = build().eval(), {"batch_size": 8, "device": torch.device("cpu")}
    whole, narrow = (
        draw(model, 8, seed=0, num_stops=4, options={"label": 1, "truncation": t}, **settings) for t in (None, 0.01)
    )
    assert narrow.std(0).mean() < 0.2 * whole.std(0).mean()
    latent = PathRandom(0, range(8), 4).truncated_normal(0.5, 4)
    assert latent.abs().max() <= 0.5 and (latent[1:] != latent[:-1]).all()
    path = draw(model, 4, seed=0, num_stops=4, options={"label": 1, "truncation": 0.5}, **settings)
    with torch.no_grad():
        torch.testing.assert_close(path, model.generate(latent[:4], torch.ones(4, dtype=torch.long)))


def test_a_code_decodes_to_the_sample_that_begins_with_it():
    model = build().eval()
    with torch.no_grad():
        latent = model.draw_latent(SampleRandom(0, range(6)))
        assert torch.equal(model.decode(latent), model.sample(SampleRandom(0, range(6))))
        # Of sample 0 and sample 3 the class is one: a walk between them stays there.
        walk = torch.lerp(latent[0], latent[3], 0.5)
        z = torch.lerp(latent[0, 4:], latent[3, 4:], 0.5)
        torch.testing.assert_close(model.decode(walk[None]), model.generate(z[None], torch.tensor([0])))


def test_overlap_is_that_of_different_filters_alone():
    layer = nn.Linear(3, 2, bias=False)
    spectrally_normalise(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 5.0]]))
    assert overlap(layer).item() == 0
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.tensor([[3.0, 0.0, 0.0], [2.0, 0.0, 5.0]]))
    assert overlap(layer).item() == 2 * 6**2  # w1 . w2, twice


def test_filters_are_kept_apart_also_without_spectral_normalisation():
    """It is of the same weights: in orthogonal ones nothing overlaps, in others as much with as without."""
    found = []
    for spectral in (True, False):
        model = build(spectral=spectral)
        weights = [weight for weight in model.generator.parameters() if weight.dim() > 1]
        layers = [layer for layer in model.generator.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        assert len(weights) == len(layers) and not any(
            spectral ^ hasattr(layer, "parametrizations") for layer in layers
        )
        with torch.no_grad():
            for weight in weights:
                weight.copy_(torch.linspace(-1, 1, weight.numel()).view_as(weight))
        found.append(overlap(model.generator))
    assert torch.equal(*found) and found[0] > 1


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 8), (8, 3)])
def test_overlap_is_the_papers_norm(outputs, inputs):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    spectrally_normalise(layer)
    filters = layer.parametrizations.weight.original
    expected = (filters @ filters.t() * (1 - torch.eye(outputs))).square().sum()
    torch.testing.assert_close(overlap(layer), expected)


def test_orthogonal_regularisation_is_a_term_of_the_generator():
    batch = Batch({"image": torch.rand(4, 1, 28, 28), "label": torch.tensor([0, 1, 2, 0])}, BatchRandom(0, stop=4))
    losses = []
    for weight in (0.0, 0.5):
        model = build(orthogonal_weight=weight).eval()
        batch.random.calls = 0
        with torch.no_grad():
            model.generator.project[0].parametrizations.weight.original[:2] = 1.0  # two filters that overlap
        losses.append(model.generator_loss(batch))
    (plain, _), (regularised, metrics) = losses
    assert metrics["overlap"] > 1
    torch.testing.assert_close(regularised, plain + 0.5 * metrics["overlap"])


def test_attention_begins_as_nothing_and_reaches_every_place():
    torch.manual_seed(0)
    layer, x = SelfAttention(8), torch.randn(1, 8, 4, 4, requires_grad=True)
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.gamma.fill_(1.0)
    (gradient,) = torch.autograd.grad((layer(x) - x)[0, 0, 0, 0], x)
    # The place of the largest key and value of each 2 x 2 window is looked at.
    assert (gradient.abs().amax((0, 1)) > 0).unfold(0, 2, 2).unfold(1, 2, 2).any(-1).any(-1).all()


def test_a_cheap_skip_is_the_papers_skip():
    """A 1x1 convolution and an enlargement to nearest neighbours commute."""
    block, x = UpBlock(4, 2, 3), torch.randn(2, 4, 5, 5)
    enlarge = nn.Upsample(scale_factor=2, mode="nearest")
    torch.testing.assert_close(block.skip(enlarge(x)), enlarge(block.skip(x)))


def test_every_layer_of_both_players_has_a_bounded_slope():
    model = build()
    for network in (model.generator, model.discriminator):
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding)]
        assert layers and all(hasattr(layer, "parametrizations") for layer in layers)


def test_classes_are_needed_and_obeyed():
    with pytest.raises(ValueError, match="needs data with classes"):
        BigGAN(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0)))
    model = build().eval()
    latent = torch.randn(1, 4).expand(3, -1)
    images = model.generate(latent, torch.arange(3))
    assert (images[0] - images[1]).abs().max() > 1e-6


def test_the_discriminator_sees_whether_four_images_of_a_class_are_one():
    """The same image beside itself and beside others is not judged alike; groups of four do not see each other."""
    model = build().eval()
    images, label = torch.randn(8, 1, 28, 28), torch.zeros(8, dtype=torch.long)
    varied = model.judge(images, label)
    torch.testing.assert_close(varied[:4], model.judge(images[:4], label[:4]))
    repeated = model.judge(images[:1].expand(4, -1, -1, -1), label[:4])
    torch.testing.assert_close(repeated, repeated[:1].expand(4, -1))
    assert (repeated[0] - varied[0]).abs() > 1e-4


def test_images_of_a_class_are_held_apart_by_the_weight_of_it():
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        model = build(diversity_weight=weight)
        random = BatchRandom(0, stop=3)
        batch = Batch({"image": torch.zeros(3, 1, 28, 28), "label": torch.arange(3)}, random)
        loss, metrics = model.generator_loss(batch)
        losses[weight] = loss.item()
        assert ("likeness" in metrics) == (weight > 0)
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * metrics["likeness"].item(), rel=1e-3)
    assert losses[1.0] - losses[0.0] == pytest.approx(metrics["likeness"].item(), rel=1e-3)
