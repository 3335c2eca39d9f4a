"""Facts about PixelCNN++: no pixel is seen too early, all images' probabilities sum to one, memory changes nothing."""

import itertools

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.pixelcnnpp import DrawnAhead, PixelCNNpp
from genai_cli.nn.logistic_mixture import draw, logistic_mixture
from genai_cli.nn.random import BatchRandom, SampleRandom


def model_of(channels: int, height: int, width: int, levels: int = 4, **options) -> PixelCNNpp:
    torch.manual_seed(0)
    spec = Spec("image", (channels, height, width), value_range=(-1.0, 1.0), levels=levels, classes=("a", "b"))
    model = PixelCNNpp(spec, **{"width": 8, "depth": 2, "num_components": 3, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch_of(x: torch.Tensor, **labels: torch.Tensor) -> Batch:
    return Batch({"image": x, **labels}, BatchRandom(0, stop=len(x)))


def test_a_pixel_is_told_by_all_before_it_and_none_after():
    model = model_of(3, 4, 4).double()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    outputs = model.network(x).sum(1).flatten()
    for pixel in range(16):
        (gradient,) = torch.autograd.grad(outputs[pixel], x, retain_graph=True)
        seen = (gradient[0] != 0).flatten(1)  # (C, H * W)
        assert seen[:, :pixel].all() and not seen[:, pixel:].any()


@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 2), 4), ((3, 1, 2), 2), ((1, 3, 3), 2)])
def test_probabilities_of_all_images_sum_to_one(shape, levels):
    model = model_of(*shape, levels=levels)
    values = torch.linspace(-1, 1, levels).tolist()
    count = shape[0] * shape[1] * shape[2]
    images = torch.tensor(list(itertools.product(values, repeat=count))).view(-1, *shape)
    probability = (-model.evaluate(batch_of(images))["nll"].double()).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_drawing_with_memory_equals_a_whole_pass_for_each_pixel(channels):
    model = model_of(channels, 5, 4, conditional=True)
    label = torch.tensor([0, 1, 0, 1])
    noise = SampleRandom(3, range(4)).uniform(1 + channels, 5, 4)
    x = torch.zeros(4, channels, 5, 4)
    with torch.no_grad():
        for i, j in itertools.product(range(5), range(4)):
            mixture = logistic_mixture(model.network(x, label)[:, :, i : i + 1, j : j + 1], channels)
            x[:, :, i, j] = draw(mixture, DrawnAhead(noise[:, :, i, j]), levels=4).flatten(1)
    torch.testing.assert_close(model.sample(SampleRandom(3, range(4))), x, atol=1e-6, rtol=0)


def test_given_halves_stay():
    model = model_of(1, 4, 4)
    given = torch.randint(0, 4, (2, 1, 4, 4)) / 1.5 - 1
    drawn = model.sample(SampleRandom(0, range(3)), given=given)
    torch.testing.assert_close(drawn[:, :, :2], given[[0, 1, 0], :, :2], atol=1e-6, rtol=0)
    assert not torch.equal(drawn[0], drawn[2])


def test_labels_are_heard_or_refused():
    model = model_of(1, 4, 4, conditional=True)
    nll = model.evaluate(batch_of(torch.ones(2, 1, 4, 4), label=torch.arange(2)))["nll"]
    assert nll[0] != nll[1]
    with pytest.raises(ValueError, match=r"label=1 needs a model trained with model\.conditional=true"):
        model_of(1, 4, 4).sample(SampleRandom(0, range(2)), label=1)
