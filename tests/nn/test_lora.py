"""Facts about low-rank adapters: what they add, in closed form, to a layer of any kind."""

import pytest
import torch
from torch import nn

from genai_cli.nn.lora import LowRank, adaptable_places, add_adapters


@pytest.mark.parametrize("kind", [lambda: nn.Linear(5, 3), lambda: nn.Embedding(6, 4), lambda: nn.Conv2d(2, 3, 3)])
def test_a_layer_gains_alpha_over_r_of_b_a(kind):
    """h = W x + (alpha / r) B A x, of the shape of W whatever that is."""
    layer = kind()
    weight = layer.weight.detach().clone()
    add_adapters(layer, list(adaptable_places(layer).values()), rank=2, alpha=6.0)
    adapter = layer.parametrizations.weight[0]
    assert torch.equal(layer.weight, weight)  # B begins as 0
    nn.init.normal_(adapter.b)
    difference = (layer.weight - weight).flatten(1)
    torch.testing.assert_close(difference, 3.0 * adapter.b @ adapter.a)
    assert torch.linalg.matrix_rank(difference) == 2


def test_no_adapter_is_larger_than_the_matrix_it_adds_to():
    """More could say nothing more; the scale is that of the rank that was asked for."""
    adapter = LowRank(torch.zeros(3, 2), rank=8, alpha=8.0)
    assert adapter.a.shape == (2, 2) and adapter.b.shape == (3, 2)
    nn.init.normal_(adapter.b)
    torch.testing.assert_close(adapter(torch.zeros(3, 2)), adapter.b @ adapter.a)
