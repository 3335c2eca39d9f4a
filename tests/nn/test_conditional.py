"""Facts about layers that know the class of each row."""

import torch

from genai_cli.nn.conditional import ConditionalBatchNorm, Projection
from genai_cli.nn.norm import BatchNorm


def test_every_class_has_its_own_scale_and_shift_of_the_same_normalised_maps():
    torch.manual_seed(0)
    layer, plain = ConditionalBatchNorm(3, 2), BatchNorm(3)
    x, label = torch.randn(4, 3, 5, 5), torch.tensor([0, 1, 1, 0])
    assert (layer(x, label) - plain(x)).abs().max() > 0.1  # classes differ before training
    with torch.no_grad():
        layer.own.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 5, 0], [0, 0, -1, 0, 0, 7]]))
    h = plain(x)
    scale = torch.tensor([[2.0, 1, 1], [1, 1, 0]])[label][:, :, None, None]
    shift = torch.tensor([[0.0, 5, 0], [0, 0, 7]])[label][:, :, None, None]
    torch.testing.assert_close(layer(x, label), scale * h + shift)


def test_points_are_normalised_too():
    layer = ConditionalBatchNorm(3, 2)
    assert layer(torch.randn(4, 3), torch.tensor([0, 1, 1, 0])).shape == (4, 3)


def test_projection_is_the_product_with_the_vector_of_the_class():
    projection = Projection(4, 3)
    features, label = torch.randn(5, 4, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    logits = projection(features, label)
    torch.testing.assert_close(logits[:, 0], torch.einsum("bf,bf->b", features, projection.classes.weight[label]))
    (gradient,) = torch.autograd.grad(logits.sum(), features)
    torch.testing.assert_close(gradient, projection.classes.weight[label])
