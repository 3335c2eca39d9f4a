import pytest
import torch
from torch import nn

from genai_cli.nn import linear
from genai_cli.nn.linear import FastLinear

WAYS = ["plain", "oneDNN"] if hasattr(torch.ops.mkldnn, "_linear_pointwise") else ["plain"]
Pair = tuple[FastLinear, nn.Linear]


@pytest.fixture(params=WAYS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Our layer, on either way through it, and torch's with the same weights."""
    monkeypatch.setattr(linear, "_pays", lambda: request.param == "oneDNN")
    monkeypatch.setattr(linear, "SMALLEST", 0)
    torch.manual_seed(0)
    ours, theirs = FastLinear(12, 7), nn.Linear(12, 7)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
@pytest.mark.parametrize("is_first", [True, False])  # of a network, whose input wants no gradient
def test_output_and_every_gradient_equal_those_of_torch(pair: Pair, shape: tuple[int, ...], is_first: bool) -> None:
    results = []
    for layer in pair:
        x = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).requires_grad_(not is_first)
        y = layer(x)
        y.sin().sum().backward()
        results.append([y, layer.weight.grad, layer.bias.grad, *([] if is_first else [x.grad])])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_only_the_gradients_asked_for_are_computed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = pair
    wanted_of_weight = []
    monkeypatch.setattr(linear._ThroughWeight, "backward", staticmethod(lambda *_: wanted_of_weight.append(1)))
    x = torch.ones(3, 12, requires_grad=True)
    layer(x).sum().backward(inputs=[x])
    assert x.grad is not None and layer.weight.grad is None and not wanted_of_weight


def test_without_gradients_the_output_is_the_same(pair: Pair) -> None:
    x = torch.ones(3, 12)
    with torch.no_grad():
        torch.testing.assert_close(pair[0](x), pair[1](x))
