"""Facts about the network of the diffusion family: its backbone and what it is told."""

import pytest
import torch
from torch import nn

from genai_cli.data.base import Batch, Spec
from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.denoiser_mlp import DenoiserMLP
from genai_cli.nn.dit import DiT
from genai_cli.nn.random import BatchRandom
from genai_cli.nn.unet import UNet

IMAGE = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("a", "b", "c"))
POINT = Spec("points", (2,))


def denoiser(spec: Spec, **options) -> Denoiser:
    """With weights drawn at random: an untrained one is zero."""
    torch.manual_seed(0)
    sizes = {"width": 8, "levels": 2, "depth": 1, "heads": None, "patch": None, "dropout": 0.0}
    network = Denoiser(spec, **{**sizes, "backbone": None, "condition": None, "label_dropout": 0.1, **options})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize(
    ("spec", "backbone", "expected"),
    [(IMAGE, None, UNet), (IMAGE, "unet", UNet), (IMAGE, "dit", DiT), (POINT, None, DenoiserMLP)],
)
def test_the_backbone_follows_the_data(spec, backbone, expected):
    network = denoiser(spec, backbone=backbone)
    assert isinstance(network.backbone, expected)
    x = torch.randn(3, *spec.shape)
    early, late = (network(x, torch.full((3,), t)) for t in (10.0, 900.0))
    assert early.shape == x.shape and not torch.allclose(early, late)


def test_a_backbone_that_cannot_take_the_data_is_refused():
    with pytest.raises(ValueError, match=r"model\.backbone=dit cannot take points: use model\.backbone=mlp"):
        denoiser(POINT, backbone="dit")
    with pytest.raises(ValueError, match=r"model\.backbone=mlp cannot take image: use model\.backbone=unet"):
        denoiser(IMAGE, backbone="mlp")


def test_an_option_that_the_backbone_does_not_have_is_refused():
    for option in ({"heads": 0}, {"heads": 2}, {"patch": 1}):
        ((key, value),) = option.items()
        with pytest.raises(ValueError, match=rf"model\.{key}={value} is of images and maps, and these are points"):
            denoiser(POINT, **option)
        with pytest.raises(ValueError, match=rf"model\.{key}={value} is of images and maps, and these are vectors"):
            denoiser(Spec("latents", (4,)), **option)


def test_patches_are_of_two_pixels_and_of_one_place_of_a_map_of_latents():
    assert denoiser(IMAGE).backbone.patch == denoiser(IMAGE, backbone="dit").backbone.patch == 2
    assert denoiser(Spec("latents", (2, 8, 8))).backbone.patch == 1
    assert denoiser(IMAGE, patch=4).backbone.patch == 4


def test_the_class_is_told_and_data_without_classes_are_refused():
    network = denoiser(IMAGE, condition="label")
    x, t = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.full((4,), 300.0)
    found = network(x, t, label=torch.tensor([0, 1, 2, 3]))
    assert torch.cdist(found.flatten(1), found.flatten(1)).add(torch.eye(4)).min() > 1e-3
    with pytest.raises(ValueError, match=r"model\.condition=label needs data with labels"):
        denoiser(POINT, condition="label")


def test_labels_are_dropped_in_training_alone_at_the_share_asked_for():
    network = denoiser(IMAGE, condition="label", label_dropout=0.3)
    labels = torch.arange(30_000) % 3
    batch = Batch({"label": labels}, BatchRandom(0, stop=30_000))
    dropped = network.label_of(batch)
    is_none = dropped == 3
    assert is_none.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(dropped[~is_none], labels[~is_none])
    assert torch.equal(network.eval().label_of(batch), labels)
    assert denoiser(IMAGE).label_of(batch) is None


def test_several_times_are_told_apart():
    network = denoiser(POINT, num_times=2)
    x, early, late = torch.randn(3, 2), torch.full((3,), 10.0), torch.full((3,), 900.0)
    assert not torch.allclose(network(x, early, late), network(x, late, early))
