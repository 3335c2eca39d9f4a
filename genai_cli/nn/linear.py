"""A linear layer that takes the faster of two libraries for its matrix products.

On AMD processors torch's own choice for float32, MKL, runs at half the speed of oneDNN, which is in the same torch: a
layer of 784 x 400 on 128 rows takes 1.3 ms forward and backward with the one, 0.65 ms with the other.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALLEST = 3_000_000  # weights of a layer, times rows of its input, for which the difference pays


class FastLinear(nn.Linear):
    """`nn.Linear`, in everything but speed; where oneDNN does the work, it can be differentiated only once."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.pays = _pays()  # looked up here: what is compiled cannot read files

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., in_features) to (B, ..., out_features)."""
        if not torch.compiler.is_compiling():
            return fast_linear(x, self.weight, self.bias)
        if self.pays and _is_plain(x, self.weight) and x.numel() * len(self.weight) >= SMALLEST:
            return _CompiledLinear.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, in everything but speed; see `FastLinear`."""
    if x.numel() * len(weight) < SMALLEST or not _is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class _Linear(torch.autograd.Function):
    """x W^T + b. Whoever wants the gradient of only the input or only the weights computes no other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, *wants_bias = (_is_wanted(node) for node, _ in ctx.next_functions)
        of_x = _product(gradient, weight.t()) if wants_x else None
        gradient = gradient.flatten(0, -2)  # (rows, out)
        of_weight = _product(gradient.t(), x.flatten(0, -2).t()) if wants_weight else None
        return of_x, of_weight, gradient.sum(0) if any(wants_bias) else None


class _CompiledLinear(torch.autograd.Function):
    """`_Linear` for torch's compiler, which takes its operator as it is, and leaves out by itself what nobody wants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return torch.ops.genai.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # (rows, out)
        of_weight = torch.ops.genai.linear(rows.t(), x.flatten(0, -2).t(), None)
        return torch.ops.genai.linear(gradient, weight.t(), None), of_weight, rows.sum(0) if ctx.has_bias else None


def _is_wanted(node: Any) -> bool:
    """Whether this backward pass goes on to `node`: a generator's turn passes by the weights of its discriminator."""
    try:
        return node is not None and torch._C._will_engine_execute_node(node)
    except RuntimeError:  # of the leaves of `torch.autograd.grad` it cannot tell
        return True


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b by oneDNN; the operator that torch's own compiler emits for it."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


# The same under a name of ours: where the compiler meets the name above, it wants the weights to be constants.
_OPERATORS = torch.library.Library("genai", "DEF")
_OPERATORS.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_OPERATORS.impl("linear", _product, "CPU")
_OPERATORS.impl("linear", lambda x, weight, bias: x.new_empty(*x.shape[:-1], len(weight)), "Meta")


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return _pays() and _is_plain(x, weight) and not torch.compiler.is_compiling()


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    is_float32 = x.dtype == weight.dtype == torch.float32
    return is_float32 and x.device.type == "cpu" and x.ndim >= 2 and not torch.is_autocast_enabled("cpu")


@cache
def _pays() -> bool:
    """Whether this machine has the processor and this torch the operator."""
    try:
        is_amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    has_operators = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch._C, "_will_engine_execute_node")
    return is_amd and torch.backends.mkldnn.is_available() and has_operators
