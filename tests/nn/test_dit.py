"""Facts about the diffusion transformer."""

import pytest
import torch

from genai_cli.nn.dit import Block, DiT, grid_embedding

SIZES = {"condition_dim": 3, "width": 16, "depth": 2, "heads": 2}


@pytest.mark.parametrize(("shape", "patch"), [((1, 28, 28), 4), ((3, 32, 32), 8), ((2, 12, 20), 2)])
def test_output_has_the_shape_of_the_input_and_is_zero_before_training(shape, patch):
    network = DiT(shape, patch=patch, **SIZES)
    assert torch.equal(network(torch.randn(2, *shape), torch.randn(2, 3)), torch.zeros(2, *shape))


def test_a_block_is_the_identity_before_training():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16)
    assert torch.equal(Block(16, 3, 2, 0.0)(x, torch.randn(2, 3)), x)


def randomised() -> DiT:
    torch.manual_seed(0)
    network = DiT((2, 8, 12), patch=2, **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def test_gradient_reaches_every_parameter_and_rows_do_not_mix():
    network = randomised()
    x = torch.randn(3, 2, 8, 12, requires_grad=True)
    network(x, torch.randn(3, 3))[1].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    assert (x.grad[1] != 0).all()  # every patch sees every patch
    assert (x.grad[0] == 0).all() and (x.grad[2] == 0).all()


def test_only_the_positions_tell_patches_apart():
    """Without them, an image with its patches in another order gives the output with its patches in that order."""
    network = randomised()
    x, condition = torch.randn(1, 2, 8, 12), torch.randn(1, 3)
    assert not torch.allclose(network(x.roll(4, 3), condition), network(x, condition).roll(4, 3), atol=1e-3)
    network.positions.zero_()
    torch.testing.assert_close(network(x.roll(4, 3), condition), network(x, condition).roll(4, 3))


def test_every_position_has_its_own_embedding():
    positions = grid_embedding(7, 9, 16)
    assert positions.shape == (63, 16)
    assert torch.cdist(positions, positions).add(torch.eye(63) * 9).min() > 0.1


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="patch=5 must divide the sides of the images, 28x28"):
        DiT((1, 28, 28), patch=5, **SIZES)
    with pytest.raises(ValueError, match="16 features must be divisible by 4 and by heads=3"):
        DiT((1, 28, 28), patch=4, **{**SIZES, "heads": 3})
