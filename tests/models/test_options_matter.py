"""No option is accepted and ignored: each changes what is built, learned, drawn or measured, or is refused.

Every option of every model on every kind of data is changed by itself, and the model compared with the one before:
weights, gradients of a few steps, samples and held-out figures.
"""

import dataclasses
import hashlib
import zlib
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor

from genai_cli import registry
from genai_cli.annotations import read_annotation
from genai_cli.checks import Check
from genai_cli.config import Config
from genai_cli.data.base import Batch, Spec
from genai_cli.engine.figures import held_out_figures
from genai_cli.engine.sampling import draw
from genai_cli.errors import ConfigError
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import BatchRandom
from genai_cli.registry import MODEL
from tests.models.test_contract import BATCH_SIZE, CPU, SPECS, build, pairs, tiny_config, tiny_split

BINARY = "black and white"
ALIKE = ("colour 32", "molecules", "music")  # kinds of data on which nothing is told apart from another kind
STEPS = (0, 700, 4000)  # where warm-ups have begun, go on and have ended


def kinds_of_every_preset() -> list[tuple[str, str]]:
    found = [(preset, kind) for preset, kind in pairs() if kind not in ALIKE]
    return found + [(preset, BINARY) for preset, kind in found if kind == "grey 28"]


class Gradients:
    """A `Step` that notes what each group would learn."""

    def __init__(self, model: GenerativeModel, batch: Batch, number: int):
        self.model, self.batch, self.number, self.seen = model, batch, number, {}

    def minimize(self, group: str, loss: Any, *, batch: int = 0) -> None:
        torch.manual_seed(batch)
        value, metrics = loss(self.batch)
        members = [parameter for parameter in self.model.parameter_groups()[group] if parameter.requires_grad]
        gradients = torch.autograd.grad(value, members, allow_unused=True)
        self.seen[f"{group} {batch} {self.number}"] = [value, *metrics.values(), *filter(torch.is_tensor, gradients)]


def traces_of(config: Config, kind: str) -> str:
    """A hash of all that the model of `config` is and does. Raises ConfigError where it is refused."""
    spec = dataclasses.replace(SPECS["grey 28"], levels=2) if kind == BINARY else SPECS[kind]
    model = build(config, spec)
    traces = {"state": [*model.state_dict().values(), *model.buffers()], "groups": sorted(model.parameter_groups())}
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # what begins at zero would hide the rest
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    rows = rows_of(spec)
    for number in STEPS:
        random, shared = (BatchRandom(use, number, stop=BATCH_SIZE) for use in (0, 1))
        step = Gradients(model.train(), Batch(rows, random, shared), number)
        model.train_step(step)
        traces |= step.seen
    held_out = tiny_split(spec, 4)
    held_out.tensors |= {name: tensor[:4] for name, tensor in rows.items()}
    try:
        traces["samples"] = [draw(model, 3, seed=0, batch_size=3, device=CPU, sources=held_out)]
    except ValueError as error:  # of a model that answers, whose prompt and answer share the smallest window
        traces["samples"] = [str(error)]
    figures = held_out_figures(model.eval(), held_out, seed=0, batch_size=4, device=CPU)
    traces["figures"] = [(name, figure.mean) for name, figure in figures.items()]
    return hash_of(traces)


def rows_of(spec: Spec) -> dict[str, Tensor]:
    rows = tiny_split(spec).fetch(torch.arange(BATCH_SIZE))
    if spec.levels == 2 and spec.modality == "image":
        rows["image"] = rows["image"].sign()
    if spec.classes:
        rows["label"] = torch.arange(BATCH_SIZE) % 2
    return rows


def hash_of(traces: dict[str, list[Any]]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(traces.items()):
        digest.update(name.encode())
        for value in values:
            is_tensor = torch.is_tensor(value)
            digest.update(value.detach().contiguous().numpy().tobytes() if is_tensor else repr(value).encode())
    return digest.hexdigest()


def others(kind: Any, value: Any) -> list[Any]:
    """Some other values of a type."""
    members = get_args(kind)
    if get_origin(kind) is Annotated:
        return others(members[0], value)
    if get_origin(kind) is Literal:
        return [choice for choice in members if choice != value]
    if members:
        return [found for member in members for found in others(member, value)]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        near = value if is_number else 2
        found = [2 * near, near + 1, near - 1, 2, 1, 3, 4 * near]
    elif kind is float:
        near = value if is_number else 0.5
        found = [0.5 * near, 2 * near, near + 0.25, 0.3, 30.0]
    else:
        found = [False, True] if kind is bool else []
    return [each for each in dict.fromkeys(found) if each != value or type(each) is not type(value)]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "kind"), kinds_of_every_preset())
def test_every_option_changes_something_or_is_refused(preset: str, kind: str) -> None:
    config = tiny_config(preset, "grey 28" if kind == BINARY else kind)
    definition = registry.define(MODEL, config.model["name"])
    try:
        before = traces_of(config, kind)
    except ConfigError:  # of what is smallest, an option that these data do not have
        left_out = {key: None for key in definition.tiny if definition.options[key].default is None}
        config = dataclasses.replace(config, model={**config.model, **left_out})
        before = traces_of(config, kind)
    ignored = []
    for name, option in definition.options.items():
        annotation = read_annotation(option.annotation)
        kept, refused = [], []
        for value in others(annotation, config.model[name]):
            check = Check()
            changed = check.named(MODEL, {**config.model, name: value}, (), None)
            try:
                check.raise_problems()
                after = traces_of(dataclasses.replace(config, model=changed.options), kind)
            except ConfigError:
                refused.append(value)
                continue
            if after != before:
                break
            kept.append(value)
        else:
            is_the_only_choice = refused and len(kept) == 1  # by its own name
            if kept and not is_the_only_choice:
                ignored.append(f"{name}={config.model[name]} or {kept}")
    assert not ignored
