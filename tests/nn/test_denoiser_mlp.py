"""Facts about the denoiser of points."""

import torch

from genai_cli.nn.denoiser_mlp import DenoiserMLP


def test_output_is_zero_before_training_and_knows_the_condition_after():
    torch.manual_seed(0)
    network = DenoiserMLP(3, condition_dim=2, width=16, depth=2)
    x, condition = torch.randn(5, 3), torch.randn(5, 2)
    assert torch.equal(network(x, condition), torch.zeros(5, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):  # one step for each zero on the way in: the head, the blocks, the condition
        optimizer.zero_grad()
        (network(x, condition) - x).square().mean().backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    assert not torch.allclose(network(x, condition), network(x, -condition))
