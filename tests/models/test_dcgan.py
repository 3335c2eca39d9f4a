"""Facts about the convolutional GAN."""

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.dcgan import DCGAN
from genai_cli.nn.convnets import split_side
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.random import BatchRandom, SampleRandom


def spec_of(side: int, channels: int = 1) -> Spec:
    return Spec("image", (channels, side, side), value_range=(-1.0, 1.0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 32, 64])
def test_both_players_fit_the_images(side, channels):
    torch.manual_seed(0)
    model = DCGAN(spec_of(side, channels), latent_dim=4, width=2)
    image = torch.rand(3, channels, side, side) * 2 - 1
    for loss in (model.discriminator_loss, model.generator_loss):
        value, _ = loss(Batch({"image": image}, BatchRandom(0, stop=3)))
        assert torch.isfinite(value)
    model.eval()
    samples = model.sample(SampleRandom(0, range(3)))
    assert samples.shape == image.shape
    assert samples.abs().max() <= 1
    assert model.discriminator(image).shape == (3, 1)


def test_the_papers_generator():
    """Figure 1 of the paper: 1024 maps of 4x4, then 512, 256 and 128, then a 64x64 image of 3 channels."""
    with torch.device("meta"):
        model = DCGAN(spec_of(64, 3), width=128)
    assert [norm.weight.numel() for norm in model.generator.modules() if isinstance(norm, BatchNorm)] == [
        1024, 512, 256, 128
    ]  # fmt: skip
    assert model.generator.project[0].weight.shape == (1024 * 4 * 4, 100)


@pytest.mark.parametrize(("side", "expected"), [(16, (4, 2)), (28, (7, 2)), (32, (4, 3)), (56, (7, 3)), (64, (4, 4))])
def test_sides_that_it_takes(side, expected):
    assert split_side((1, side, side)) == expected


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 8, 8), (1, 14, 14), (3, 28, 32), (3, 2, 2), (1, 48, 48)])
def test_other_sides_are_refused_with_the_rule(shape):
    with pytest.raises(ValueError, match=f"4 or 7 times a power of two.*not {shape[1]}x{shape[2]}"):
        DCGAN(Spec("image", shape, value_range=(-1.0, 1.0)))


def test_weights_begin_small_and_biases_at_zero():
    torch.manual_seed(0)
    model = DCGAN(spec_of(28), width=32)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.count_nonzero() == 0
        elif parameter.dim() > 1 and parameter.numel() > 10_000:
            assert abs(parameter.std().item() - 0.02) < 1e-3


def test_no_parameter_is_undone_by_normalisation():
    """A bias before a batch normalisation would get no gradient: there is none."""
    torch.manual_seed(0)
    model = DCGAN(spec_of(16), latent_dim=4, width=4)
    image = torch.rand(8, 1, 16, 16) * 2 - 1
    for group, loss in (("discriminator", model.discriminator_loss), ("generator", model.generator_loss)):
        parameters = list(model.parameter_groups()[group])
        value, _ = loss(Batch({"image": image}, BatchRandom(0, stop=8)))
        for gradient in torch.autograd.grad(value, parameters):
            assert gradient.abs().max() > 1e-7


def test_data_and_fakes_are_normalised_apart():
    """What the discriminator says of the data does not depend on the fakes beside them."""
    torch.manual_seed(0)
    model = DCGAN(spec_of(16), latent_dim=4, width=4)
    batch = Batch({"image": torch.rand(8, 1, 16, 16)}, BatchRandom(0, stop=8))
    _, before = model.discriminator_loss(batch)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.mul_(3)
    _, after = model.discriminator_loss(batch)
    torch.testing.assert_close(before["real_probability"], after["real_probability"])
    assert before["fake_probability"] != after["fake_probability"]
