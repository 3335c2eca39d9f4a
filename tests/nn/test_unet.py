"""Facts about the U-Net."""

import pytest
import torch

from genai_cli.nn.unet import Attention, ResidualBlock, UNet


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 64, 64), (2, 12, 20)])
def test_output_has_the_shape_of_the_input_and_is_zero_before_training(shape, levels):
    network = UNet(shape, width=4, levels=levels, heads=0 if levels == 1 else 2)
    found = network(torch.randn(2, *shape), torch.tensor([1, 900]))
    assert torch.equal(found, torch.zeros(2, *shape))


def test_sides_that_cannot_be_halved_are_refused_with_the_rule():
    with pytest.raises(ValueError, match=r"levels=3 .* must be divisible by 4, but it is 30x28"):
        UNet((1, 30, 28), levels=3)
    UNet((1, 30, 28), width=8, levels=2)


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="width=6 must be divisible by 4"):
        UNet((1, 28, 28), width=6)
    with pytest.raises(ValueError, match="heads=3 must divide the 32 channels"):
        UNet((1, 28, 28), width=8, heads=3)


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    network = UNet((1, 8, 8), width=8, levels=2, depth=2, heads=2, dropout=0.1)
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([1, 10, 100, 1000])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(3):  # a zero-initialised layer passes gradient on from the step after its own first
        optimizer.zero_grad()
        (network(x, t) - x).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters()), step
        optimizer.step()
    untouched = [name for name, p in network.named_parameters() if p.grad.abs().sum() == 0]
    assert not untouched


def test_residual_branches_begin_as_zero():
    x, time = torch.randn(2, 8, 4, 4), torch.randn(2, 6)
    assert torch.equal(ResidualBlock(8, 6, 0.0)(x, time), x)
    assert torch.equal(Attention(8, 2)(x, time), torch.zeros_like(x))


def test_attention_is_softmax_over_all_pixels():
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
    network = UNet((1, 8, 8), width=8, levels=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(3, 1, 8, 8, requires_grad=True), torch.tensor([1, 10, 100])
    network(x, t)[1].square().sum().backward()
    assert (x.grad[1] != 0).all()  # attention at the bottom: every pixel sees every pixel
    assert (x.grad[0] == 0).all() and (x.grad[2] == 0).all()


def test_activations_stay_channels_last():
    """One strided copy at a wrong place costs a third of the speed; a new operation must not bring one in."""
    network = UNet((1, 8, 8), width=8, levels=2, depth=2)
    wrong = []

    def look(module, inputs, output):
        if output.dim() == 4 and output.shape[1] > 1 and not output.is_contiguous(memory_format=torch.channels_last):
            wrong.append(type(module).__name__)

    for module in network.modules():
        module.register_forward_hook(look)
    network(torch.randn(2, 1, 8, 8), torch.tensor([1, 2]))
    assert not wrong
