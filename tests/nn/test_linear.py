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


@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "all"])
@pytest.mark.parametrize("is_leaf", [True, False])
def test_only_the_gradients_asked_for_are_computed(
    pair: Pair, wanted: str, is_leaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, _ = pair
    products, true_product = [], linear._product
    monkeypatch.setattr(linear, "_product", lambda *args: products.append(1) or true_product(*args))
    leaf = torch.ones(3, 12, requires_grad=True)
    tensors = {"x": leaf, "weight": layer.weight, "bias": layer.bias}
    y = layer(leaf if is_leaf else 2 * leaf)
    is_ours = bool(products)
    y.sum().backward(inputs=None if wanted == "all" else [tensors[wanted]])
    assert {name for name, tensor in tensors.items() if tensor.grad is not None} == (
        set(tensors) if wanted == "all" else {wanted}
    )
    assert len(products) == is_ours * (1 + {"x": 1, "weight": 1, "bias": 0, "all": 2}[wanted])


@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_gradients_are_those_of_autograd_grad(pair: Pair, wanted: str) -> None:
    found = []
    for layer in pair:
        x = torch.linspace(-1, 1, 36).view(3, 12).requires_grad_()
        found += torch.autograd.grad(layer(x).sin().sum(), {"x": x, "weight": layer.weight}[wanted])
    torch.testing.assert_close(*found)


def test_without_gradients_the_output_is_the_same(pair: Pair) -> None:
    x = torch.ones(3, 12)
    with torch.no_grad():
        torch.testing.assert_close(pair[0](x), pair[1](x))


@pytest.mark.parametrize("bias", [True, False])
def test_what_is_compiled_equals_what_is_not(pair: Pair, bias: bool) -> None:
    layer = pair[0] if bias else FastLinear(12, 7, bias=False)
    results = []
    for forward in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        x = torch.linspace(-1, 1, 72).view(2, 3, 12).requires_grad_()
        y = forward(x)
        layer.zero_grad()
        y.sin().sum().backward()
        results.append([y, x.grad, *[parameter.grad for parameter in layer.parameters()]])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
