"""The multilayer perceptron: linear layers with an activation between them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from genai_cli.nn.linear import FastLinear


def mlp(
    widths: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    norm: Callable[[int], nn.Module] | None = None,
    linear: Callable[[int, int], nn.Linear] = FastLinear,
) -> nn.Sequential:
    """Linear layers from widths[0] to widths[-1] by way of the widths between; nothing after the last.

    Maps (..., widths[0]) to (..., widths[-1]). `norm(width)`, if any, stands between a layer and its activation.
    `linear=nn.Linear` makes layers that can be differentiated twice.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers.append(linear(inputs, outputs))
        if norm is not None:
            layers.append(norm(outputs))
        layers.append(activation())
    return nn.Sequential(*layers, linear(widths[-2], widths[-1]))
