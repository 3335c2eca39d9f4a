"""Where a NaN began is named: example, weight, module's output, loss or gradient, in this order."""

import torch
from torch import Tensor, nn

from genai_cli.doctor.nonfinite import first_cause


class Root(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), Root(), nn.Linear(4, 1))


def rows(value: float = 1.0) -> dict[str, Tensor]:
    x = torch.ones(5, 3)
    x[3, 1] = value
    return {"points": x, "label": torch.arange(5)}


def cause(model: nn.Module, batch: dict[str, Tensor], *, scale: float = 1.0) -> str | None:
    return first_cause(model, lambda: scale * model(batch["points"]).mean(), batch)


def test_nothing_is_named_where_all_is_finite():
    model = network()
    nn.init.constant_(model[1][1].weight, 0.5)
    nn.init.constant_(model[1][1].bias, 9.0)
    assert cause(model, rows()) is None


def test_a_bad_example():
    assert cause(network(), rows(torch.nan)) == "the data themselves are not: points of row 3 of the batch"


def test_a_bad_weight():
    model = network()
    model[1][1].bias.data[0] = torch.inf
    assert cause(model, rows()) == "the weight 1.1.bias is not"


def test_the_innermost_module():
    model = network()
    nn.init.constant_(model[1][1].bias, -9.0)  # the root of a negative number
    assert cause(model, rows()) == "the first bad output is of 2 (Root), whose inputs are finite"


def test_the_loss_itself():
    model = network()
    nn.init.constant_(model[1][1].bias, 9.0)
    assert cause(model, rows(), scale=torch.inf) == "every module's output is finite, the loss made of them is not"


def test_a_gradient_that_breaks_on_its_way_back():
    model = network()
    nn.init.zeros_(model[1][1].weight)
    nn.init.zeros_(model[1][1].bias)  # the root of 0 has no slope
    words = "the first bad gradient is at the output of 1.1 (Linear); that at the output of 2 (Root) was finite"
    assert cause(model, rows()) == words


def test_nothing_stays_behind():
    model = network()
    cause(model, rows())
    assert not any(module._forward_hooks for module in model.modules())
