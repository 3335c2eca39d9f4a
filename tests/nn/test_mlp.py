"""Facts about the perceptron."""

import torch
from torch import nn

from genai_cli.nn.linear import FastLinear
from genai_cli.nn.mlp import mlp


def test_it_is_linear_layers_with_activations_between():
    torch.manual_seed(0)
    network = mlp([3, 5, 4, 2], nn.Tanh)
    first, second, third = (layer for layer in network if isinstance(layer, nn.Linear))
    x = torch.randn(7, 3)
    torch.testing.assert_close(network(x), third(torch.tanh(second(torch.tanh(first(x))))))
    assert [tuple(layer.weight.shape) for layer in (first, second, third)] == [(5, 3), (4, 5), (2, 4)]


def test_two_widths_make_one_affine_map():
    assert [type(layer) for layer in mlp([3, 2])] == [FastLinear]


def test_norms_stand_before_activations():
    kinds = [type(layer) for layer in mlp([3, 5, 2], nn.SiLU, norm=nn.LayerNorm)]
    assert kinds == [FastLinear, nn.LayerNorm, nn.SiLU, FastLinear]
