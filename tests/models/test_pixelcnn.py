"""Facts about PixelCNN: no pixel or colour is seen too early, probabilities sum to one, sampling by memory is exact."""

import itertools
import math

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.pixelcnn import PixelCNN
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.raster import draw_level


def image_spec(channels: int, height: int, width: int, levels: int = 2) -> Spec:
    return Spec("image", (channels, height, width), value_range=(-1.0, 1.0), levels=levels, classes=("a", "b", "c"))


def pixelcnn(spec: Spec, **options) -> PixelCNN:
    torch.manual_seed(0)
    model = PixelCNN(spec, **{"width": 9, "depth": 3, "first_kernel": 5, **options}).eval()
    for parameter in model.parameters():  # far from the beginning, where all levels are as likely
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def batch_of(x: torch.Tensor, **labels: torch.Tensor) -> Batch:
    return Batch({"image": x, **labels}, BatchRandom(0, stop=len(x)))


each_network = pytest.mark.parametrize("attention", [False, True], ids=["plain", "attention"])


@each_network
@pytest.mark.parametrize("channels", [1, 3])
def test_no_colour_sees_itself_or_a_later_one(channels, attention):
    """And each but the first sees some before it: of pixels in raster order, of colours red, green, blue."""
    model = pixelcnn(image_spec(channels, 4, 5), attention=attention, width=48)  # some features of each group live
    x = torch.randn(1, channels, 4, 5, requires_grad=True)
    outputs = model.network(x).unflatten(1, (channels, 2)).sum((0, 2))  # (C, H, W)
    order = torch.arange(20).view(1, 4, 5) * channels + torch.arange(channels).view(-1, 1, 1)  # (C, H, W)
    for c, i, j in itertools.product(range(channels), range(4), range(5)):
        (gradient,) = torch.autograd.grad(outputs[c, i, j], x, retain_graph=True)
        seen = gradient[0] != 0
        assert not seen[order >= order[c, i, j]].any(), (c, i, j)
        assert seen[order < order[c, i, j]].all() or not attention  # attention reaches everything
        assert seen.any() or order[c, i, j] == 0


def test_there_is_no_blind_spot():
    """Deep enough, the last pixel sees all before it by convolutions alone."""
    model = pixelcnn(image_spec(1, 4, 5), depth=6).double()
    x = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.network(x)[0, 0, 3, 4], x)
    assert (gradient.flatten()[:-1] != 0).all()


@each_network
@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 1, 2)], ids=["grey", "colour"])
def test_probabilities_of_all_images_sum_to_one(shape, attention):
    model = pixelcnn(image_spec(*shape), attention=attention)
    images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=math.prod(shape)))).view(-1, *shape)
    probability = (-model.evaluate(batch_of(images))["nll"].double()).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    assert probability.max() > 4 / len(images)  # far from uniform


@each_network
@pytest.mark.parametrize(("shape", "levels"), [((1, 6, 7), 2), ((3, 4, 5), 4)], ids=["binary", "colour"])
def test_drawing_with_memory_equals_a_whole_pass_for_each_pixel(shape, levels, attention):
    model = pixelcnn(image_spec(*shape, levels), attention=attention, conditional=True)
    label = torch.tensor([i % 3 for i in range(8)])
    noise = SampleRandom(3, range(8)).uniform(*shape)
    x = torch.zeros(8, *shape)
    with torch.no_grad():
        for i, j, c in itertools.product(range(shape[1]), range(shape[2]), range(shape[0])):
            logits = model.network(x, label).unflatten(1, (shape[0], levels))[:, c, :, i, j]
            x[:, c, i, j] = model.reduction.centred(draw_level(logits, noise[:, c, i, j]))
    assert torch.equal(model.sample(SampleRandom(3, range(8))), model.reduction.to_image(x))


def test_outputs_with_memory_are_those_of_the_whole_pass():
    from genai_cli.samplers.raster import draw_raster

    model = pixelcnn(image_spec(3, 4, 5), attention=True).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    whole, pieces = model.network(x), torch.zeros(2, 6, 4, 5, dtype=torch.float64)

    def keep(outputs: torch.Tensor, i: int, j: int, n: int) -> torch.Tensor:
        pieces[:, :, i, j] = outputs
        return x[:, :, i, j]

    with torch.no_grad():
        draw_raster(model.network, keep, x.clone(), passes=1)
    torch.testing.assert_close(pieces, whole, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("keep", ["top_half", "left_half"])
def test_given_images_keep_their_half_and_the_rest_is_drawn(keep):
    model = pixelcnn(image_spec(1, 6, 6))
    given = torch.randn(2, 1, 6, 6).sign()
    drawn = model.sample(SampleRandom(0, range(5)), given=given, keep=keep)
    half = (slice(None), slice(None), slice(0, 3)) if keep == "top_half" else (..., slice(0, 3))
    assert torch.equal(drawn[half], given[[0, 1, 0, 1, 0]][half])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], given[0])
    # The same as drawing all by oneself, where what is given is what would have been drawn.
    own = model.sample(SampleRandom(7, range(5)))
    assert torch.equal(model.sample(SampleRandom(7, range(5)), given=own, keep="top_half"), own)


def test_a_label_changes_what_is_drawn_and_is_refused_without_classes():
    spec = image_spec(1, 4, 4)
    model = pixelcnn(spec, conditional=True)
    in_turn = model.sample(SampleRandom(0, range(6)))
    assert torch.equal(in_turn[1::3], model.sample(SampleRandom(0, range(6)), label=1)[1::3])
    image = torch.ones(3, 1, 4, 4)
    assert len(model.evaluate(batch_of(image, label=torch.arange(3)))["nll"].unique()) == 3
    with pytest.raises(ValueError, match="needs data with labels"):
        pixelcnn(Spec("image", (1, 4, 4), value_range=(-1.0, 1.0)), conditional=True)
    with pytest.raises(ValueError, match=r"label=1 needs a model trained with model\.conditional=true"):
        pixelcnn(spec).sample(SampleRandom(0, range(2)), label=1)


def test_reduced_images_are_averages_and_samples_are_blocks():
    model = pixelcnn(image_spec(1, 8, 8, levels=256), resolution=4)
    image = torch.rand(3, 1, 8, 8) * 2 - 1
    levels = model.reduction.to_levels(image)
    assert torch.equal(levels, ((torch.nn.functional.avg_pool2d(image, 2) + 1) * 127.5).round().long())
    drawn = model.sample(SampleRandom(0, range(3)))
    assert drawn.shape == (3, 1, 8, 8) and torch.equal(drawn[:, :, ::2, ::2], drawn[:, :, 1::2, 1::2])
    with pytest.raises(ValueError, match=r"model\.resolution=3 must divide the sides of 8 x 8 images"):
        pixelcnn(image_spec(1, 8, 8), resolution=3)


def test_a_low_temperature_draws_the_likeliest():
    model = pixelcnn(image_spec(1, 4, 4))
    cold = model.sample(SampleRandom(0, range(4)), temperature=1e-4)
    assert torch.equal(cold[:1].expand(4, -1, -1, -1), cold)
