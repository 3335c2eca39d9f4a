"""Weights divided among the processes of a run (FSDP2, `device.shard=true`): each holds, averages and updates a part.

The units that a model names gather their weights for a forward and a backward pass and let go of them again. A gradient
arrives divided, and is the mean over ranks already. Whoever needs a tensor as a whole asks for it here: checkpoints,
which are the same files whatever divided the weights, and whoever evaluates and samples, with a twin of the model that
has whole weights for as long as it needs them. What is said of tensors here holds for undivided ones, too.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from genai_cli.engine.distributed import World
from genai_cli.models.base import GenerativeModel


def divide(model: GenerativeModel, world: World, device: torch.device) -> GenerativeModel:
    """Leave each process its part of the weights of `model`. Returns its twin, which has buffers but no weights.

    Its parameters are others from here on: optimizers and averages are made afterwards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    twin = _twin(model)
    for weight in model.parameters():
        weight.data = weight.data.contiguous()  # FSDP2 knows no other layout (channels last)
    mesh = init_device_mesh(device.type, (world.size,))
    for unit in model.shard_units():
        fully_shard(unit, mesh=mesh)
    return twin


def _twin(model: GenerativeModel) -> GenerativeModel:
    """A copy that shares the buffers of `model`, and what it decodes with; its weights are empty."""
    shared = {id(buffer): buffer for buffer in model.buffers()} | {id(model.code_decoder): model.code_decoder}
    empty = {id(weight): Parameter(weight.new_empty(0), weight.requires_grad) for weight in model.parameters()}
    return copy.deepcopy(model, {**shared, **empty})


def is_divided(tensor: Tensor) -> bool:
    return hasattr(tensor, "device_mesh")  # a DTensor, whose import takes a while


def whole(tensor: Tensor) -> Tensor:
    """`tensor` with the parts of all ranks, which must all ask for it."""
    tensor = tensor.detach()
    return tensor.full_tensor() if is_divided(tensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole `tensor`, divided as `like` is, and on its device."""
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)  # every rank has the whole


def gathered(tensors: Mapping[str, Tensor], *, kept: bool, device: torch.device) -> dict[str, Tensor]:
    """The whole tensors, on `device` and where they are `kept`; every rank takes part. One after the other is whole."""
    all_whole = ((name, whole(tensor)) for name, tensor in tensors.items())
    return {name: tensor.to(device) for name, tensor in all_whole if kept}


@contextmanager
def lent(model: GenerativeModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, parameters of `model` are `weights`, by name; its own are back afterwards, whatever happens."""
    parameters = dict(model.named_parameters())
    own = {name: parameters[name].data for name in weights}
    try:
        for name, tensor in weights.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in own.items():
            parameters[name].data = tensor


def norm_of(tensors: Sequence[Tensor], *, dtype: torch.dtype | None = None) -> Tensor:
    """The 2-norm of all of them together; of divided ones every rank must ask for it."""
    return whole(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)), dtype=dtype))
