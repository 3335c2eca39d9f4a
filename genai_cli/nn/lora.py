"""Low-rank adapters (Hu et al. 2021, LoRA, arXiv:2106.09685): h = W x + (alpha / r) B A x, with W as it was.

The sum W + (alpha / r) B A takes the place of a layer's `weight` wherever that is read, so that a layer of any kind is
adapted, whatever its model does with the matrix: linear, embedding, convolution, masked or tied.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W (O, ...) -> W + (alpha / r) B A, B A being of the shape of W flattened to (O, I); B is 0 at first."""

    def __init__(self, weight: Tensor, *, rank: int, alpha: float):
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        self.scale = alpha / rank
        rank = min(rank, outputs, inputs)  # more could say nothing more
        self.a = nn.Parameter(torch.randn(rank, inputs, dtype=weight.dtype).mul_(inputs**-0.5).to(weight.device))
        self.b = nn.Parameter(torch.zeros(outputs, rank, dtype=weight.dtype, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.b @ self.a).view(weight.shape)


def adaptable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> layer, of those whose `weight` is a matrix or a kernel. Recurrent layers read theirs in another way."""
    return {
        name: module
        for name, module in model.named_modules()
        if "weight" in module._parameters or parametrize.is_parametrized(module, "weight")
        if isinstance(module.weight, Tensor) and module.weight.ndim >= 2
    }


def add_adapters(model: nn.Module, layers: list[nn.Module], *, rank: int, alpha: float) -> set[str]:
    """Put an adapter on each of `layers` of `model`. Returns the names of the new parameters."""
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank=rank, alpha=alpha))
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, LowRank)
        for name, _ in module.named_parameters()
    }


def merge_adapters(model: nn.Module) -> None:
    """Write W + (alpha / r) B A into the weights: the same function, at the cost of the layers without adapters."""
    for module in model.modules():
        steps = module.parametrizations.weight if parametrize.is_parametrized(module, "weight") else ()
        if steps and all(isinstance(step, LowRank) for step in steps):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
