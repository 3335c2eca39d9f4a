"""`minimize`: the mechanics of one optimizer update, once, for all models.

Micro-batches under autocast, backward, the mean over ranks, clipping, the check that all is finite, the group's
optimizer at the rate of its schedule, and the metrics.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from genai_cli.config import OptimizerConfig, TrainConfig
from genai_cli.data.base import Batch
from genai_cli.doctor.nonfinite import first_cause
from genai_cli.engine import faults, watchdog
from genai_cli.engine.batches import Batches
from genai_cli.engine.distributed import World
from genai_cli.engine.optimizers import build_optimizer, learning_rate, settings_of_group
from genai_cli.engine.sharding import is_divided, norm_of, part_of
from genai_cli.errors import OutOfMemory, is_out_of_memory
from genai_cli.models.base import GenerativeModel, LossFunction
from genai_cli.nn.random import BatchRandom, mix

_NOISE, _DROPOUT = 2, 3  # tags of these uses of the seed (1 is the order of the data)
_AUGMENTATION = 5  # (4 is evaluation, 6 the score of samples)
_SHARED = 7

MOST_KEPT = 256  # steps whose metrics wait to be summed: a few hundred bytes each


class NonFinite(Exception):
    """A loss or gradient that is NaN or infinite, found before it could touch a weight."""

    def __init__(self, group: str, quantity: str, step: int):
        super().__init__(f"the {quantity} of {group} is not finite at step {step + 1}")
        self.cause: str | None = None  # what was not finite first, where it shows again

    def __str__(self) -> str:
        return super().__str__() + (f": {self.cause}" if self.cause else "")


@dataclass
class Player:
    """A parameter group with its optimizer."""

    parameters: list[Parameter]
    optimizer: Optimizer
    settings: OptimizerConfig
    skipped_in_a_row: int = 0  # updates given up as not finite

    def weight_norm(self) -> float:
        """Of all its parameters; it stays the same to the last digit only where none of them changes."""
        with torch.no_grad():
            return norm_of(self.parameters, dtype=torch.float64).item()


class Averages:
    """Sums of metrics since the last log line, by key, in float64 and in the order of the steps."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self._kept: list[tuple[list[str], Tensor]] = []  # not yet summed: keys and their values, on the device

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Scalars of one step. They are copied at once, and read only now and then: the device need not wait."""
        self._kept.append((list(metrics), torch.stack(list(metrics.values()))))
        if len(self._kept) == MOST_KEPT:
            self._sum_up()

    def means(self) -> dict[str, float]:
        self._sum_up()
        return {key: total / self.counts[key] for key, total in self.totals.items()}

    def clear(self) -> None:
        for kept in (self.totals, self.counts, self._kept):
            kept.clear()

    def state(self) -> dict[str, list[float | str]]:
        """As JSON, exactly; "nan" and "inf", of which JSON has no numbers, as text."""
        self._sum_up()
        return {key: [t if math.isfinite(t) else str(t), self.counts[key]] for key, t in self.totals.items()}

    def load_state(self, state: dict[str, list[float | str]]) -> None:
        self.clear()
        for key, (total, count) in state.items():
            self.totals[key], self.counts[key] = float(total), int(count)

    def _sum_up(self) -> None:
        if self._kept:
            keys = [key for names, _ in self._kept for key in names]
            for key, value in zip(keys, torch.cat([values for _, values in self._kept]).tolist(), strict=True):
                self.totals[key] += value
                self.counts[key] += 1
            self._kept.clear()


class OptimizerStep:
    """One for a run; `number` says which step it is at. Given to the model's `train_step`."""

    def __init__(
        self, model: GenerativeModel, batches: Batches, train: TrainConfig, optimizer: OptimizerConfig, *,
        seed: int, total_steps: int, world: World, device: torch.device, precision: str = "fp32",
    ):  # fmt: skip
        self.model = model
        self.batches = batches
        self.train = train
        self.seed = seed
        self.total_steps = total_steps
        self.world = world
        self.device = device
        self.precision = precision
        self.number = 0
        self.averages = Averages()
        self.skipped = 0  # updates given up as not finite, in all
        self.stop_requested = False  # by a signal to this rank; spread to all by the next `minimize`
        self.players: dict[str, Player] = {}
        for group, members in model.parameter_groups().items():
            parameters = [parameter for parameter in members if parameter.requires_grad]
            settings = settings_of_group(optimizer, group)
            self.players[group] = Player(parameters, build_optimizer(parameters, settings), settings)

    def run(self, number: int) -> None:
        """Take the step that has `number` steps before it."""
        self.number = number
        self._calls = 0
        faults.point("step")
        self.model.train_step(self)

    def minimize(self, group: str, loss: LossFunction, *, batch: int = 0) -> None:
        """See `models.base.Step.minimize`."""
        player = self.players[group]
        for parameter in player.parameters:
            parameter.grad = None
        is_undone = self.train.nonfinite == "skip" or self.train.accumulate == "auto"
        buffers = self._copy_of_buffers() if is_undone else []
        value, metrics = self._backward_within_memory(group, player, loss, batch, buffers)
        gradients = [parameter.grad for parameter in player.parameters if parameter.grad is not None]
        gradients[0] = faults.poison(f"gradient.{group}", gradients[0])
        self._average(gradients, value, metrics)
        self._calls += 1
        try:
            norm = self._check_and_clip(group, value, gradients)
        except NonFinite as error:
            if self.train.nonfinite != "skip" or self._skip_too_often(player):
                error.cause = self._first_cause(loss, batch)
                raise
            self._restore(buffers)
            return
        player.skipped_in_a_row = 0
        rate = learning_rate(player.settings, self.number, self.total_steps)
        for parameter_group in player.optimizer.param_groups:
            parameter_group["lr"] = rate
        player.optimizer.step()
        metrics = {"loss": value, "gradient_norm": norm, **metrics}
        self.averages.add({f"{group}/{name}": metric for name, metric in metrics.items()})

    def optimizer_state(self) -> dict[str, Tensor]:
        """The tensors of every optimizer, as "GROUP/PARAMETER/SLOT"."""
        return {
            f"{group}/{name}/{slot}": tensor
            for group, name, parameter, player in self._named_parameters()
            for slot, tensor in player.optimizer.state.get(parameter, {}).items()
            if isinstance(tensor, Tensor)
        }

    def load_optimizer_state(self, state: dict[str, Tensor]) -> None:
        slots: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
        for key, tensor in state.items():
            group, name, slot = key.split("/")
            slots[group, name][slot] = tensor.to(self.device)
        for group, name, parameter, player in self._named_parameters():
            player.optimizer.state[parameter] = {
                slot: _laid_out_like(parameter, tensor) for slot, tensor in slots[group, name].items()
            }

    def skipped_in_a_row(self) -> dict[str, int]:
        return {group: player.skipped_in_a_row for group, player in self.players.items()}

    def load_skipped_in_a_row(self, counts: dict[str, int]) -> None:
        for group, player in self.players.items():
            player.skipped_in_a_row = counts[group]

    def _named_parameters(self) -> Iterator[tuple[str, str, Parameter, Player]]:
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for group, player in self.players.items():
            for parameter in player.parameters:
                yield group, names[parameter], parameter, player

    def _backward_within_memory(
        self, group: str, player: Player, loss: LossFunction, batch: int, buffers: list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`_backward`; with train.accumulate=auto again, on every rank, in smaller parts where memory ran out on one.

        The gradients are those of the whole batch all the same: a row's random numbers do not depend on its part.
        """
        while True:
            done = self._try_backward(group, player, loss, batch)
            if self.train.accumulate != "auto" or not self.world.any(done is None):
                assert done is not None
                return done
            for parameter in player.parameters:
                parameter.grad = None
            self._restore(buffers)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if self.batches.micro_size == 1:
                raise OutOfMemory("out of memory with one example at a time; try a smaller model or device.precision")
            self.batches.divide(2 * self.batches.accumulate)

    def _try_backward(
        self, group: str, player: Player, loss: LossFunction, batch: int
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """`_backward`, or None where memory ran out and something can be done about it."""
        try:
            return self._backward(group, player, loss, batch)
        except (RuntimeError, MemoryError) as error:
            if self.train.accumulate != "auto" or not is_out_of_memory(error):
                raise
        return None  # here, where the exception no longer holds on to the tensors of the attempt

    def _backward(self, group: str, player: Player, loss: LossFunction, batch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the mean loss of this rank's rows, left in `.grad`; the loss and the metrics."""
        parts = []
        for micro in range(self.batches.accumulate):
            watchdog.beat()
            rows = self._batch(batch, micro)
            with self._autocast():
                value, metrics = loss(rows)
            value = faults.poison(f"loss.{group}", value)
            share = value if self.batches.accumulate == 1 else value / self.batches.accumulate
            # Only this group's gradients are computed: the generator's turn costs no weight gradient of its critic.
            # Of a single group they are all there are, and divided weights are found by a plain backward alone.
            share.backward(inputs=player.parameters if len(self.players) > 1 else None)
            parts.append({"": value.detach(), **{name: metric.detach() for name, metric in metrics.items()}})
        if len(parts) == 1:
            metrics = parts[0]
        else:
            metrics = {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
        return metrics.pop(""), metrics

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def _batch(self, batch: int, micro: int) -> Batch:
        rows = self.batches.fetch(self.number, batch, micro)
        start = self.batches.start(micro)
        place = {
            "start": start, "stop": start + self.batches.micro_size, "total": self.batches.batch_size,
            "device": self.device,
        }  # fmt: skip
        # Not of `_calls`: every player of a step sees the same rows.
        rows = self.batches.split.augment(rows, BatchRandom(self.seed, _AUGMENTATION, self.number, batch, **place))
        random = BatchRandom(self.seed, _NOISE, self.number, self._calls, **place)
        shared = BatchRandom(self.seed, _SHARED, self.number, batch, **place)
        seed_global_generators(mix(self.seed, _DROPOUT, self.number, self._calls, start), self.device)
        return Batch(rows, random, shared)

    def _average(self, gradients: list[Tensor], value: Tensor, metrics: dict[str, Tensor]) -> None:
        """The mean over ranks of gradients, loss and metrics; a request to stop on any rank reaches all."""
        if self.world.size == 1:
            return
        asked = torch.tensor(float(self.stop_requested), device=self.device)
        own = [gradient for gradient in gradients if not is_divided(gradient)]  # the others are the mean already
        self.world.average([*own, value, *metrics.values(), asked])
        self.stop_requested = asked.item() > 0

    def _check_and_clip(self, group: str, value: Tensor, gradients: list[Tensor]) -> Tensor:
        """The norm of the gradient before clipping. Raises NonFinite before any weight is touched."""
        norm = norm_of(gradients)
        if not math.isfinite((value + norm).item()):
            raise NonFinite(group, "gradient" if value.isfinite() else "loss", self.number)
        if self.train.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.players[group].parameters, self.train.clip_norm, norm)
        return norm

    def _first_cause(self, loss: LossFunction, batch: int) -> str | None:
        """What was not finite first in the call that has just failed: it is made once more, and watched.

        Not where weights are divided: what one rank sees in its own rows, the others do not, and would wait.
        """
        if any(map(is_divided, self.model.parameters())):
            return None
        self._calls -= 1
        causes = []
        for micro in range(self.batches.accumulate):
            rows = self._batch(batch, micro)

            def value(rows: Batch = rows) -> Tensor:
                with self._autocast():
                    return loss(rows)[0]

            causes.append(first_cause(self.model, value, rows))
        return next(filter(None, causes), None)

    def _skip_too_often(self, player: Player) -> bool:
        self.skipped += 1
        player.skipped_in_a_row += 1
        return player.skipped_in_a_row > self.train.nonfinite_limit

    def _copy_of_buffers(self) -> list[Tensor]:
        return [buffer.clone() for buffer in self.model.buffers()]

    def _restore(self, buffers: list[Tensor]) -> None:
        """Undo what the forward pass of a skipped update left in running statistics."""
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)


def _laid_out_like(parameter: Parameter, tensor: Tensor) -> Tensor:
    """`tensor` divided as `parameter` is, and in its memory layout (channels last, say), as a fused kernel expects."""
    if tensor.shape != parameter.shape:
        return tensor  # a counter
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(part_of(tensor, parameter)).detach()


def seed_global_generators(seed: int, device: torch.device) -> None:
    """Seed what dropout and other built-in layers draw from: torch's own generators."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
