"""The units of a series are those of the first batch that is trained on, and stay."""

import torch

from genai_cli.nn.feature_chain import FeatureChain


def test_units_are_measured_in_the_first_training_batch_alone() -> None:
    torch.manual_seed(0)
    chain = FeatureChain(2, 4, condition_dim=3, num_components=2)
    condition, x = torch.randn(50, 6, 3), torch.tensor([3.0, 0.1]) * torch.randn(50, 6, 2) + 7
    chain.eval().nll(condition, x)
    assert not chain.is_set and torch.equal(chain.units, torch.ones(2, 2))
    chain.train().nll(condition, x)
    first = x.flatten(0, 1).std(0, correction=0), x.diff(dim=1).flatten(0, 1).std(0, correction=0)
    torch.testing.assert_close(chain.units, torch.stack(first))
    torch.testing.assert_close(chain.start, x[:, 0].mean(0))
    before = {name: buffer.clone() for name, buffer in chain.named_buffers()}
    chain.nll(condition, 100 * x - 5)
    assert chain.is_set and all(torch.equal(buffer, before[name]) for name, buffer in chain.named_buffers())
