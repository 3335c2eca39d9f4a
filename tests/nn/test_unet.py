"""Facts about the U-Net."""

import pytest
import torch

from genai_cli.nn.unet import Attention, ResidualBlock, UNet


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize(("shape", "patch"), [((1, 28, 28), 1), ((3, 32, 32), 2), ((1, 64, 64), 4), ((2, 12, 20), 1)])
def test_output_has_the_shape_of_the_input_and_is_zero_before_training(shape, patch, levels):
    network = UNet(shape, condition_dim=3, width=4, levels=levels, heads=0 if levels == 1 else 2, patch=patch)
    found = network(torch.randn(2, *shape), torch.randn(2, 3))
    assert torch.equal(found, torch.zeros(2, *shape))


def test_sides_that_cannot_be_halved_are_refused_with_the_rule():
    with pytest.raises(ValueError, match=r"patch=1 and levels=3 need images with sides divisible by 4, .* are 30x28"):
        UNet((1, 30, 28), condition_dim=3, levels=3, patch=1)
    with pytest.raises(ValueError, match=r"patch=2 and levels=2 need images with sides divisible by 4, .* are 30x28"):
        UNet((1, 30, 28), condition_dim=3, levels=2, patch=2)
    UNet((1, 30, 28), condition_dim=3, width=8, levels=2, patch=1)


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="width=6 must be divisible by 4"):
        UNet((1, 28, 28), condition_dim=3, width=6)
    with pytest.raises(ValueError, match="heads=3 must divide the 16 channels"):
        UNet((1, 28, 28), condition_dim=3, width=8, levels=2, heads=3)


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    network = UNet((1, 8, 8), condition_dim=3, width=8, levels=2, depth=2, heads=2, dropout=0.1)
    x, condition = torch.randn(4, 1, 8, 8), torch.randn(4, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(3):  # a zero-initialised layer passes gradient on from the step after its own first
        optimizer.zero_grad()
        (network(x, condition) - x).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters()), step
        optimizer.step()
    untouched = [name for name, p in network.named_parameters() if p.grad.abs().sum() == 0]
    assert not untouched


def test_residual_branches_begin_as_zero():
    x, time = torch.randn(2, 8, 4, 4), torch.randn(2, 6)
    assert torch.equal(ResidualBlock(8, 6, 0.0)(x, time), x)
    assert torch.equal(Attention(8, 2)(x, time), torch.zeros_like(x))


def test_attention_is_softmax_over_all_positions():
    torch.manual_seed(0)
    attention = Attention(8, 2)
    torch.nn.init.eye_(attention.out.weight)
    x = torch.randn(2, 8, 3, 5).contiguous(memory_format=torch.channels_last)
    tokens = attention.norm(x).flatten(2).mT  # (B, T, C)
    q, k, v = attention.qkv(tokens).chunk(3, dim=2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (q[..., head] @ k[..., head].mT / 2).softmax(-1)  # (B, T, T), scaled by sqrt(D) = 2
        heads.append(weights @ v[..., head])
    expected = torch.cat(heads, dim=2).mT.reshape(2, 8, 3, 5)
    torch.testing.assert_close(attention(x, torch.empty(0)), expected)


def test_rows_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    network = UNet((1, 8, 8), condition_dim=3, width=8, levels=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, condition = torch.randn(3, 1, 8, 8, requires_grad=True), torch.randn(3, 3)
    network(x, condition)[1].square().sum().backward()
    assert (x.grad[1] != 0).all()  # attention at the bottom: every position sees every position
    assert (x.grad[0] == 0).all() and (x.grad[2] == 0).all()


def test_activations_stay_channels_last():
    """One strided copy at a wrong place costs a third of the speed; a new operation must not bring one in."""
    network = UNet((1, 8, 8), condition_dim=3, width=8, levels=2, depth=2)
    wrong = []

    def look(module, inputs, output):
        if output.dim() == 4 and output.shape[1] > 1 and not output.is_contiguous(memory_format=torch.channels_last):
            wrong.append(type(module).__name__)

    for module in network.modules():
        module.register_forward_hook(look)
    network(torch.randn(2, 1, 8, 8), torch.randn(2, 3))
    assert not wrong


def test_the_condition_scales_and_shifts_the_second_norm():
    torch.manual_seed(0)
    block = ResidualBlock(8, 3, 0.0)
    torch.nn.init.normal_(block.conv2.weight)
    x, condition = torch.randn(2, 8, 4, 4), torch.randn(2, 3)
    scale, shift = block.modulation(condition).chunk(2, dim=1)
    h = block.conv1(torch.nn.functional.silu(block.norm1(x))).unflatten(1, (2, 4))  # two groups of four channels
    mean, variance = h.mean((2, 3, 4), keepdim=True), h.var((2, 3, 4), keepdim=True, correction=0)
    normed = ((h - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
    modulated = normed * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    expected = x + block.conv2(torch.nn.functional.silu(modulated))
    torch.testing.assert_close(block(x, condition), expected, atol=1e-5, rtol=1e-4)
