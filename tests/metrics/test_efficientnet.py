"""EfficientNet-Lite0: the outputs of the package that its weights were made for, and what it sees in photographs."""

import builtins

import numpy
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from genai_cli.errors import ConfigError
from genai_cli.metrics.efficientnet import SIDE, EfficientNetLite0, load_efficientnet

PALACE, DAISY = 698, 985  # of ImageNet


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return load_efficientnet()


@torch.no_grad()
def test_outputs_are_those_of_the_reference(network):
    """Computed with efficientnet-lite-pytorch 0.1.0, which ours equalled to the last bit."""
    image = torch.sin(torch.arange(3 * SIDE * SIDE).float() / 50).view(1, 3, SIDE, SIDE)
    expected = [-1.8201112747, -0.2501649261, -1.1714787483, -1.7274684906, 0.3510786295, -0.2946733534]
    assert network(image)[0, :6].tolist() == pytest.approx(expected, abs=2e-3)
    assert network(image).argmax() == 905


@pytest.mark.parametrize(("name", "label"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
@torch.no_grad()
def test_photographs_are_recognised(network, name, label):
    photograph = torch.from_numpy(numpy.array(load_sample_image(name))).permute(2, 0, 1)[None] / 127.5 - 1
    image = F.interpolate(photograph[..., 106:533], size=(SIDE, SIDE), mode="bilinear", antialias=True)
    assert network(image).argmax() == label


@torch.no_grad()
def test_grey_images_of_any_size_have_1280_features(network):
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = network.features(images)
    assert found.shape == (2, 1280) and not torch.equal(found[0], found[1])


def test_without_its_package_it_says_how_to_get_it(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("efficientnet"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"genai-cli\[features\]"):
        load_efficientnet()
