"""Optimizers and learning-rate schedules, by name.

Weight decay falls on matrices and kernels only (parameters of two or more dimensions): biases, gains and norms are
left alone, as is the practice since GPT-2. The learning rate of a step is a function of the step, so a schedule has no
state.
"""

import inspect
import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from genai_cli.config import ConfigError, OptimizerConfig
from genai_cli.engine.sharding import is_divided


def settings_of_group(config: OptimizerConfig, group: str) -> OptimizerConfig:
    """The optimizer of one group: `optimizer.*` with `optimizer.overrides.GROUP.*` on top."""
    return replace(config, **config.overrides.get(group, {}))


def check_overrides(config: OptimizerConfig, groups: Iterable[str]) -> None:
    """Raise ConfigError if an override names a group that the model has not."""
    groups = list(groups)
    problems = [
        f"optimizer.overrides.{name} names no parameter group of this model; it has {', '.join(groups)}"
        for name in config.overrides
        if name not in groups
    ]
    if problems:
        raise ConfigError(*problems)


def build_optimizer(parameters: list[Parameter], config: OptimizerConfig) -> Optimizer:
    """The optimizer of `config.name` over `parameters`, fused into one kernel a step where torch has that."""
    groups = [{"params": parameters, "weight_decay": 0.0}]
    if config.weight_decay:
        decayed = [parameter for parameter in parameters if parameter.ndim >= 2]
        spared = [parameter for parameter in parameters if parameter.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    if config.name in ("adam", "adamw"):
        kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
        return _without_dynamo(kind)(groups, lr=config.lr, betas=config.betas, fused=True)
    if config.name == "sgd":
        is_fused = not any(map(is_divided, parameters))  # torch's fused SGD does not know divided tensors
        return _without_dynamo(torch.optim.SGD)(groups, lr=config.lr, momentum=config.momentum, fused=is_fused)
    if config.name == "rmsprop":
        return _without_dynamo(torch.optim.RMSprop)(groups, lr=config.lr, momentum=config.momentum)
    return _without_dynamo(torch.optim.Adagrad)(groups, lr=config.lr)


def _without_dynamo(kind: type[Optimizer]) -> type[Optimizer]:
    """`kind` less the decorators of its methods that import torch._dynamo: a second that only compiling needs."""
    methods = {
        "step": torch.no_grad()(inspect.unwrap(kind.step)),
        "add_param_group": inspect.unwrap(kind.add_param_group),
    }
    methods["step"].hooked = True  # nor a label for torch's profiler around each step
    return type(kind.__name__, (kind,), methods)


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The rate of the step with `step` steps before it: a linear warm-up, then the schedule down to its final ratio."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    progress = min(1.0, progress)
    remaining = (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * remaining)
