"""Where a NaN comes from: the step that diverged is computed once more, with an eye on every module.

Runs only after a loss or gradient was found not to be finite, so that nothing need be watched before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[], Tensor]


def first_cause(model: nn.Module, loss: Loss, batch: dict[str, Tensor]) -> str | None:
    """The first thing that is not finite when `loss` is computed and differentiated, in words; None if nothing is.

    In this order: the examples, a weight, the output of a module whose inputs are finite, the loss, the gradient.
    """
    return _bad_example(batch) or _bad_weight(model) or _bad_module(model, loss)


def _bad_example(batch: dict[str, Tensor]) -> str | None:
    for key, rows in batch.items():
        if rows.is_floating_point() and not rows.isfinite().all():
            row = (~rows.flatten(1).isfinite().all(1)).nonzero()[0].item() if rows.dim() > 1 else 0
            return f"the data themselves are not: {key} of row {row} of the batch"
    return None


def _bad_weight(model: nn.Module) -> str | None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return f"the weight {name} is not"
    return None


def _bad_module(model: nn.Module, loss: Loss) -> str | None:
    """Inner modules end before those around them, so the first bad output is that of the innermost."""
    found: list[str] = []
    passed: list[str] = []  # modules whose gradient has come back finite

    def look_at_gradient(name: str, gradient: Tensor) -> None:
        if gradient.isfinite().all():
            passed.append(name)
        elif not found:
            where = f"that at the output of {passed[-1]} was finite" if passed else "it comes from the loss"
            found.append(f"the first bad gradient is at the output of {name}; {where}")

    def look_at_output(name: str, inputs: Any, output: Any) -> None:
        outputs = list(_tensors(output))
        if found:
            return
        if not _is_finite(outputs) and _is_finite(_tensors(inputs)):
            found.append(f"the first bad output is of {name}, whose inputs are finite")
        for tensor in outputs:
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: look_at_gradient(name, gradient))

    with _watched(model, look_at_output):
        value = loss()
        if not found and not value.isfinite():
            found.append("every module's output is finite, the loss made of them is not")
        if not found:
            value.backward()
    return found[0] if found else _bad_gradient(model)


def _bad_gradient(model: nn.Module) -> str | None:
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the first bad gradient is of {name}"
    return None


@contextmanager
def _watched(model: nn.Module, look: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Within, `look(name, inputs, output)` sees every call of a module inside `model`."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: look(f"{name} ({type(module).__name__})", inputs, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _tensors(entry)


def _is_finite(tensors: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())
