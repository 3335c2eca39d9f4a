"""Low-rank adapters (Hu et al. 2021, LoRA, arXiv:2106.09685): h = W x + (alpha / r) B A x, with W as it was.

The sum W + (alpha / r) B A takes the place of a layer's `weight` wherever that is read, so that a layer of any kind is
adapted, whatever its model does with the matrix: linear, embedding, convolution, masked or tied. An LSTM or GRU has
several matrices, each with an adapter of its own.
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


Place = tuple[nn.Module, str]  # a layer and the name of one of its matrices


def adaptable_places(model: nn.Module) -> dict[str, Place]:
    """Name -> place of each matrix or kernel: of a layer that has one, "weight", its name is the layer's."""
    places: dict[str, Place] = {}
    for name, module in model.named_modules():
        own = "weight" in module._parameters or parametrize.is_parametrized(module, "weight")
        if own and isinstance(module.weight, Tensor) and module.weight.ndim >= 2:
            places[name] = module, "weight"
        if isinstance(module, nn.RNNBase):
            matrices = [key for key in module._parameters if key.startswith("weight")]  # of input and state
            places |= {f"{name}.{key}": (module, key) for key in matrices}
    return places


def add_adapters(model: nn.Module, places: list[Place], *, rank: int, alpha: float) -> set[str]:
    """Put an adapter on each of `places` of `model`. Returns the names of the new parameters."""
    for layer, key in places:
        parametrize.register_parametrization(layer, key, LowRank(getattr(layer, key), rank=rank, alpha=alpha))
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, LowRank)
        for name, _ in module.named_parameters()
    }


def merge_adapters(model: nn.Module) -> None:
    """Write W + (alpha / r) B A into the weights: the same function, at the cost of the layers without adapters."""
    for module in list(model.modules()):
        for key, steps in list(getattr(module, "parametrizations", {}).items()):
            if all(isinstance(step, LowRank) for step in steps):
                parametrize.remove_parametrizations(module, key, leave_parametrized=True)
