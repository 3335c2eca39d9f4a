"""Inception-v3: the features of torch-fidelity's network from the same weights, in both layouts; when FID is FID."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from genai_cli.errors import ConfigError
from genai_cli.metrics import inception
from genai_cli.metrics.inception import Inception, enlarge, load_inception, to_levels


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random ones under the published names, of a size that keeps signals alive through all layers."""
    network, generator = Inception(), torch.Generator().manual_seed(0)
    state = {**network.state_dict(), "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            state[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif name.endswith(("bn.bias", "running_mean")):
            state[name] = 0.3 * torch.randn(tensor.shape, generator=generator)
    return state


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(weights, folder / "inception.pth")
    save_file(weights, folder / "inception.safetensors")
    return {"pth": folder / "inception.pth", "safetensors": folder / "inception.safetensors"}


@torch.no_grad()
@pytest.mark.parametrize("side", [28, 299, 320])
def test_features_are_those_of_torch_fidelity(files, side):
    pixels = torch.randint(256, (2, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    (expected,) = FeatureExtractorInceptionV3("theirs", ["2048"], str(files["pth"]))(pixels)
    found = load_inception(files["pth"])[0].features(pixels / 127.5 - 1)
    assert found.shape == (2, 2048) and expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_both_layouts_are_the_same_network_and_grey_is_three_times_the_same(files):
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    one, other = (load_inception(path)[0] for path in files.values())
    torch.testing.assert_close(one.features(grey), other.features(grey.expand(-1, 3, -1, -1)), rtol=0, atol=0)


def test_images_are_taken_as_files_would_hold_them():
    """In whole levels: what no file can hold is no part of a published figure."""
    levels = torch.tensor([0.0, 17.0, 128.0, 255.0])
    images = ((levels + torch.tensor([0.3, -0.4, 0.4, 0.0])) / 127.5 - 1).view(1, 1, 2, 2)
    assert torch.equal(to_levels(images), levels.view(1, 1, 2, 2).expand(1, 3, 2, 2))
    assert to_levels(torch.tensor([[[[-1.2, 1.2]]]]))[0, 0, 0].tolist() == [0, 255]


def test_images_are_enlarged_as_tensorflow_did():
    images = torch.rand(2, 3, 28, 31, generator=torch.Generator().manual_seed(3)) * 255
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    torch.testing.assert_close(enlarge(images, 299), expected, rtol=1e-5, atol=1e-3)


def test_only_the_published_file_makes_a_fid(files, monkeypatch):
    assert not load_inception(files["pth"])[1]
    monkeypatch.setattr(inception, "PUBLISHED", hashlib.sha256(files["pth"].read_bytes()).hexdigest()[:8])
    assert load_inception(files["pth"])[1] and not load_inception(files["safetensors"])[1]


def test_other_files_are_refused_in_words(weights, tmp_path):
    torch.save({**weights, "AuxLogits.fc.weight": torch.zeros(1)}, tmp_path / "torchvision.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name, words in {
        "torchvision.pth": "torchvision's Inception", "other.pth": "does not hold the weights", "list.pth": "no state",
        "text.pth": "is no state dict", "text.safetensors": "is no state dict", "nowhere.pth": "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            load_inception(tmp_path / name)
