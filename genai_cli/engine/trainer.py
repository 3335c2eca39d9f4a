"""The loop: step after step, and what is due after each one. It knows no model's name.

Every step is a function of the weights, the optimizers and (seed, step); all else that a run needs to go on is in its
checkpoint. So a run that is killed and resumed ends in the same bytes as one that was left alone.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genai_cli.config import Config
from genai_cli.data.base import DataError, Split
from genai_cli.doctor.findings import Finding
from genai_cli.doctor.signs import Reference, code_signs, sample_signs
from genai_cli.doctor.symptoms import Facts
from genai_cli.doctor.watch import Watch
from genai_cli.engine import checkpoint as checkpoints
from genai_cli.engine import posthoc_ema
from genai_cli.engine.adaptation import Adaptation
from genai_cli.engine.batches import Batches
from genai_cli.engine.checkpoint import Checkpoint
from genai_cli.engine.distributed import World
from genai_cli.engine.ema import MovingAverage
from genai_cli.engine.figures import first_batch, held_out_figures
from genai_cli.engine.logs import RunLog
from genai_cli.engine.optimizers import learning_rate
from genai_cli.engine.progress import Clock, Progress
from genai_cli.engine.sampling import draw, evaluation_mode
from genai_cli.engine.sharding import divide, gathered, lent
from genai_cli.engine.signals import Interruption, Signals
from genai_cli.engine.step import NonFinite, OptimizerStep
from genai_cli.errors import ConfigError, Diverged, ExitCode, Unhealthy
from genai_cli.media.sheets import sheet, sound
from genai_cli.metrics.quick import NAME as SCORE
from genai_cli.metrics.quick import QuickScore, has_quick_score
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import mix
from genai_cli.rules import seconds_of

CPU = torch.device("cpu")
_ENCODED = 256  # validation examples whose codes the doctor looks at
_PICTURED = 32  # validation examples shown beside their reconstructions
_SCORED = 6  # tag of this use of the seed
_SCORED_AT_ONCE = 250
_UNITS = {"image": "images", "text": "tokens", "music": "tokens", "molecules": "tokens", "codes": "codes"}
_UNITS |= {"rolls": "pieces", "series": "windows", "audio": "clips"}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    exit_code: ExitCode
    step: int
    total_steps: int
    did_nothing: bool = False  # it was finished before


class Trainer:
    """One training run in `folder`."""

    def __init__(
        self, model: GenerativeModel, train: Split, validation: Split, config: Config, *,
        folder: Path, world: World, device: torch.device, adaptation: Adaptation | None = None,
    ):  # fmt: skip
        self.model = model
        # What is evaluated and sampled: the model itself, or where its weights are divided a twin that is lent them.
        self.judged = divide(model, world, device) if config.device.shard and world.size > 1 else model
        self.adaptation = adaptation or Adaptation(model)
        self.validation = validation
        self.config = config
        self.folder = folder
        self.world = world
        self.device = device
        self.total_steps = total_steps(config, len(train), model.batches_per_step)
        self.batches = Batches(
            train, seed=config.seed, batch_size=config.train.batch_size,
            accumulate=1 if config.train.accumulate == "auto" else config.train.accumulate,
            batches_per_step=model.batches_per_step, rank=world.rank, world_size=world.size,
            workers=config.device.workers, read_timeout=seconds_of(config.device.read_timeout), device=device,
        )  # fmt: skip
        self.step = OptimizerStep(
            model, self.batches, config.train, config.optimizer, seed=config.seed, total_steps=self.total_steps,
            world=world, device=device, precision=config.device.precision,
        )  # fmt: skip
        self.ema: MovingAverage | None = None
        if config.train.ema is not None:
            self.ema = MovingAverage(model, self.adaptation.averaged(), decay=config.train.ema)
        self.powers = (
            posthoc_ema.PowerAverages(model, self.adaptation.averaged()) if config.train.posthoc_ema else None
        )  # fmt: skip
        self.watch = Watch(
            config.doctor,
            Facts(
                total_steps=self.total_steps, monitor=model.monitor, codebook_size=config.model.get("num_codes"),
                patience=config.doctor.patience,
            ),
        )  # fmt: skip
        self._logged: dict[str, float] = {}  # numbers of this step's closing work, for the watch
        self._reference: Reference | None = None  # read when first needed
        self.done = 0  # steps taken
        self.best: dict[str, float] | None = None  # {"step": ..., "value": ...}
        self.quick_score: QuickScore | None = None  # made by the first evaluation that needs it
        self.avoided: list[int] = []  # steps that a rollback found to diverge; passed over
        self._work_pending = False  # what is due after the step `done` is not done yet
        self._clock = Clock()

    def run(self, signals: Signals) -> Outcome:
        """Train from the newest checkpoint (or the beginning) to the end, or to a signal."""
        if not self._restore():
            norms = {f"{group}/weight_norm": player.weight_norm() for group, player in self.step.players.items()}
            self.watch.curves.add(0, norms)
        if self.done >= self.total_steps and not self._work_pending:
            return Outcome(ExitCode.DONE, self.done, self.total_steps, did_nothing=True)
        if self.config.device.compile:
            for child in self.model.children():
                child.compile()
        self._open_logs()
        try:
            while not self._stopping(signals) and (self._work_pending or self.done < self.total_steps):
                if self._work_pending:
                    self._finish_step(signals)
                else:
                    self._take_step(signals)
        finally:
            self.batches.close()
            self.log.close()
            self.progress.close()
        if self._stopping(signals):
            self._save()
            return Outcome(signals.exit_code, self.done, self.total_steps)
        return Outcome(ExitCode.DONE, self.done, self.total_steps)

    def checkpoint_bytes(self) -> int:
        """About how large a checkpoint will be: weights, their average, and two slots of the optimizer for each."""
        weights = sum(tensor.nbytes for tensor in self.adaptation.learned().values())
        copies = 1 + (self.ema is not None)
        snapshot = self.powers.nbytes if self.powers is not None else 0
        return copies * weights + snapshot + 2 * sum(parameter.nbytes for parameter in self.model.parameters())

    # -- one step ---------------------------------------------------------------------------------------------------

    def _take_step(self, signals: Signals) -> None:
        try:
            self.step.stop_requested = signals.received is not None
            if self.done in self.avoided:
                self.step.stop_requested = self.world.any(self.step.stop_requested)
            else:
                self.adaptation.train()
                parts = self.batches.accumulate
                self.step.run(self.done)
                if self.batches.accumulate > parts:
                    size, parts = self.batches.micro_size, self.batches.accumulate
                    self.progress.say(f"step {self.done + 1}  out of memory: on with {parts} micro-batches of {size}")
            self.done += 1
            if self.ema is not None:
                self.ema.update(self.done)
            if self.powers is not None:
                self.powers.update(self.done)
            self._clock.tick()
            self.progress.advance(self.done)
            self._work_pending = self._is_work_due()
        except NonFinite as error:
            self._handle_non_finite(error)

    def _stopping(self, signals: Signals) -> bool:
        """Whether to stop here: agreed between ranks by the last update's message."""
        return self.step.stop_requested if self.world.size > 1 else signals.received is not None

    def _is_due(self, every: int | None) -> bool:
        return every is not None and (self.done % every == 0 or self.done == self.total_steps)

    def _is_work_due(self) -> bool:
        train = self.config.train
        periods = (train.log_every, train.evaluate_every, train.sample_every, train.save_every)
        return self.done == self.total_steps or any(self._is_due(every) for every in periods)

    def _finish_step(self, signals: Signals) -> None:
        """Do what is due after the step `done`: log, evaluate, sample, save; all of it on resume if a signal comes."""
        train = self.config.train
        best = self.best
        self._logged = {}
        try:
            if self._is_due(train.log_every):
                self._log_averages()
            if self._is_due(train.evaluate_every) or self._is_due(train.sample_every):
                best = self._judge(signals)
        except Interruption:
            pass
        if self.world.any(signals.received is not None):
            self.step.stop_requested = True
            return
        if self._is_due(train.log_every):
            self.step.averages.clear()
        improved, self.best = best != self.best, best
        self._work_pending = False
        found = {self.watch.policy(finding.name): finding for finding in reversed(self._consult())}
        if "rollback" in found:
            self._roll_back(found["rollback"])
            return
        if improved or self._is_due(train.save_every) or self.done == self.total_steps or "stop" in found:
            self._save()
        self._clock.restart()
        if "stop" in found:
            words = f"saved at step {self.done}; genai train run={self.folder} goes on all the same"
            raise Unhealthy(f"{found['stop'].words}. {found['stop'].disease.remedy} ({words})")

    def _abandonable(self, signals: Signals) -> AbstractContextManager[None]:
        """Within, a signal ends the work. Not between ranks: half of them would wait for the other half for ever."""
        return signals.interruptible() if self.world.size == 1 else nullcontext()

    # -- log, evaluate, sample --------------------------------------------------------------------------------------

    def _open_logs(self) -> None:
        first = self.world.is_first
        # A resume in the middle of a step's closing work writes that step's lines again.
        self.log = RunLog(
            self.folder, first_step=self.done - self._work_pending, written=first,
            tensorboard=self.config.logger.tensorboard,
        )  # fmt: skip
        unit = _UNITS.get(self.model.spec.modality, "examples")
        self.progress = Progress(first=self.done, total=self.total_steps, unit=unit, shown=first)
        self._clock.restart()

    def _log_averages(self) -> None:
        values = self.step.averages.means()
        for group, player in self.step.players.items():
            values[f"{group}/learning_rate"] = learning_rate(player.settings, self.done - 1, self.total_steps)
            if f"{group}/loss" in values:  # not where every step since the last line was passed over
                values[f"{group}/weight_norm"] = player.weight_norm()
        if self.config.train.accumulate == "auto":
            values["accumulate"] = self.batches.accumulate
        if self.step.skipped:
            values["skipped_updates"] = self.step.skipped
        seconds = self._clock.seconds_per_step()
        per_step = self.config.train.batch_size * self.model.batches_per_step
        if self.model.spec.is_tokens:
            per_step *= self.model.spec.shape[0]
        speed = per_step / seconds
        self.progress.report(self.done, values, speed=speed, seconds_left=seconds * (self.total_steps - self.done))
        self._logged |= values
        times = {f"time/{self.progress.unit}_per_second": speed, "time/step_seconds": seconds}
        if self.device.type == "cuda":
            times["time/peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        self.log.numbers(self.done, values | times)

    def _judge(self, signals: Signals) -> dict[str, float] | None:
        """Evaluate and sample as is due, with the averaged weights. Returns the best evaluation so far."""
        best = self.best
        average = self.ema.state() if self.ema is not None else {}
        weights = {**dict(self.model.named_parameters()), **average}
        with lent(self.judged, self._gathered(weights, self.device)), evaluation_mode(self.judged):
            if self._is_due(self.config.train.evaluate_every):
                best = self._evaluate(signals)
                self._measure_codes(signals)
            if self._is_due(self.config.train.sample_every):
                self._sample(signals)
        return best

    def _evaluate(self, signals: Signals) -> dict[str, float] | None:
        """Held-out figures on the validation split, with the averaged weights. Returns the best so far."""
        if not self.world.is_first:
            return self.world.broadcast(None)
        train = self.config.train
        with self._abandonable(signals):
            figures = held_out_figures(
                self.judged, self.validation, seed=self.config.seed, batch_size=train.batch_size,
                device=self.device, limit=train.evaluate_examples,
            )  # fmt: skip
            score = self._score()
        means = {f"validation/{key}": figure.mean for key, figure in figures.items()}
        means |= {f"validation/{key}": value for key, value in score.items()}
        if means:
            self.log.numbers(self.done, means)
            self._logged |= means
            self.progress.say(f"step {self.done}  " + "  ".join(f"{key} {value:.4g}" for key, value in means.items()))
        best = self.best
        watched = figures[self.judged.monitor].mean if self.judged.monitor in figures else None
        watched = score.get(SCORE, watched)
        if watched is not None and math.isfinite(watched) and (best is None or watched < best["value"]):
            best = {"step": self.done, "value": watched}
        return self.world.broadcast(best)

    def _score(self) -> dict[str, float]:
        """The Frechet distance of samples: where it was asked for, or where the model has no figure to go by."""
        train, model = self.config.train, self.judged
        wanted = train.score_samples or (None if model.monitor else train.evaluate_examples or len(self.validation))
        if wanted is None or not has_quick_score(model.spec):
            return {}
        if self.quick_score is None:
            self.quick_score = QuickScore(model.spec, self.validation, num_examples=wanted, device=self.device)
        settings = {"seed": mix(self.config.seed, _SCORED), "batch_size": _SCORED_AT_ONCE, "sources": self.validation}
        return self.quick_score.score(lambda count: draw(model, count, device=self.device, **settings))

    def _sample(self, signals: Signals) -> None:
        """The same seeds each time, so that a row of sheets shows one set of samples growing up."""
        if not self.world.is_first:
            return
        train = self.config.train
        with self._abandonable(signals):
            samples = draw(
                self.judged, train.num_samples, seed=self.config.seed, batch_size=train.num_samples, device=self.device,
                sources=self.validation,
            )  # fmt: skip
            batch = first_batch(self.validation, _PICTURED, seed=self.config.seed, device=self.device)
            with torch.no_grad():
                pictures = self.judged.pictures(batch)
            if self._reference is None:
                self._reference = Reference.of(self.batches.split, self.validation, self.judged.spec)
            self._log_signs(sample_signs(samples, self._reference, self.judged.spec))
        self.log.sheet(self.done, "samples", sheet(self.judged.shown(samples), self.judged.shown_spec))
        heard = sound(samples, self.judged.spec)
        if heard is not None:
            self.log.sound(self.done, "samples", heard)
        for name, picture in pictures.items():
            self.log.sheet(self.done, name, sheet(picture, self.judged.spec))

    def _measure_codes(self, signals: Signals) -> None:
        """What the codes say of the validation split, where they are random."""
        if not self.world.is_first or not self.judged.has_posterior:
            return
        with self._abandonable(signals), torch.no_grad():
            batch = first_batch(self.validation, _ENCODED, seed=self.config.seed, device=self.device)
            self._log_signs(code_signs(*self.judged.posterior_of_rows(batch)))

    def _log_signs(self, signs: dict[str, float]) -> None:
        if signs:
            self.log.numbers(self.done, signs)
            self._logged |= signs

    def _gathered(self, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """The whole tensors, for rank 0 alone; every rank takes part."""
        return gathered(tensors, kept=self.world.is_first, device=device)

    # -- the doctor -------------------------------------------------------------------------------------------------

    def _consult(self) -> list[Finding]:
        """What the doctor newly finds in the numbers that this step logged: told, but for what leads to a rollback."""
        found = self.watch.examine(self.done, self._logged) if self.world.is_first else []
        found = self.world.broadcast(found)
        for finding in found:
            if self.watch.policy(finding.name) != "rollback":
                self._report(finding)
        return found

    def _report(self, finding: Finding) -> None:
        self.log.finding(finding.step, finding.to_json())
        self.progress.say(f"doctor: {finding.words}. {finding.disease.remedy}")

    def _roll_back(self, finding: Finding) -> None:
        """Back to the newest checkpoint from before `finding` began; the steps since then are passed over.

        Raises Unhealthy, saved, where there is none or after too many rollbacks.
        """
        flagged, avoided, rollbacks = self.done, self.avoided, self.watch.rollbacks + 1
        steps = [int(path.name[-8:]) for path in checkpoints.checkpoints(self.folder / "checkpoints")]
        is_possible = self.world.broadcast(any(step < finding.since for step in steps))
        if rollbacks > self.config.doctor.rollbacks or not is_possible:
            self._report(finding)
            tried = f"after {rollbacks - 1} rollbacks" if is_possible else "and no checkpoint is from before it began"
            self._save()
            raise Unhealthy(f"{finding.words}, {tried}. {finding.disease.remedy}")
        if self.world.is_first:
            checkpoints.discard_from(self.folder / "checkpoints", finding.since)
        self.world.barrier()
        self._restore()
        self.avoided = sorted({*avoided, *range(self.done, flagged)})
        self.watch.rollbacks = rollbacks
        self._reopen_logs(f"the doctor rolls back to step {self.done}; the steps to {flagged} will be passed over")
        self._report(finding)

    # -- save, restore, recover -------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Commit the state after the step `done`. Raises Diverged rather than keep weights that are not finite."""
        tensors = {
            "weight": self.adaptation.learned(),
            "average": self.ema.state() if self.ema is not None else {},
            "optimizer state": self.step.optimizer_state(),
            "snapshot": self.powers.state() if self.powers is not None else {},
        }
        for quantity, members in tensors.items():
            name = checkpoints.first_non_finite(members)
            if name is not None:
                where = f"the {quantity} {name} is not finite after step {self.done}"
                raise Diverged(f"{where}; nothing was saved. {self._advice()}")
        weights, average, optimizer, snapshot = (self._gathered(members, CPU) for members in tensors.values())
        if self.world.is_first:
            saved = Checkpoint(
                step=self.done,
                model=weights,
                ema=average,
                optimizer=optimizer,
                state={
                    "averages": self.step.averages.state(),
                    "best": self.best,
                    "avoided": self.avoided,
                    "skipped": self.step.skipped,
                    "skipped_in_a_row": self.step.skipped_in_a_row(),
                    "work_pending": self._work_pending,
                    "accumulate": self.batches.accumulate,
                    "doctor": self.watch.state(),
                },
            )
            best_step = int(self.best["step"]) if self.best else None
            if self.powers is not None:
                posthoc_ema.keep(snapshot, self.folder, self.done, every=self.config.train.save_every)
            checkpoints.save(saved, self.folder / "checkpoints", keep=self.config.train.keep, best_step=best_step)
        self.world.barrier()

    def _restore(self) -> bool:
        """Take up the newest valid checkpoint. Returns whether there was one."""
        if self.world.is_first:
            newest = checkpoints.load_newest(self.folder / "checkpoints")
            step = newest.step if newest is not None else None
            self.world.broadcast(step)
        else:
            step = self.world.broadcast(None)
            newest = None if step is None else checkpoints.load(self.folder / "checkpoints", str(step))
        if newest is not None:
            try:
                self._take_up(newest)
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                words = f"the checkpoint of step {newest.step} in {self.folder} is not of this model: {error}"
                raise DataError(words) from error
        return newest is not None

    def _take_up(self, saved: Checkpoint) -> None:
        self.adaptation.take_up(saved.model)
        if self.ema is not None:
            self.ema.load_state(saved.ema)
        if self.powers is not None:
            self.powers.restore(self.folder, saved.step)
            if self.world.is_first:  # what is after it will come again
                checkpoints.discard_from(self.folder / posthoc_ema.FOLDER, saved.step + 1)
        self.step.load_optimizer_state(saved.optimizer)
        self.step.averages.load_state(saved.state["averages"])
        self.step.skipped = saved.state["skipped"]
        self.step.load_skipped_in_a_row(saved.state["skipped_in_a_row"])
        self.best = saved.state["best"]
        self.avoided = saved.state["avoided"]
        self._work_pending = saved.state["work_pending"]
        self.watch.load_state(saved.state.get("doctor"))
        if self.config.train.accumulate == "auto":  # the same sums in the same order
            self.batches.divide(max(self.batches.accumulate, saved.state.get("accumulate", 1)))
        self.done = saved.step

    def _handle_non_finite(self, error: NonFinite) -> None:
        """The policy `train.nonfinite` for a step that diverged before it touched the weights."""
        finding = Finding("not_finite", self.done, self.done, str(error))
        if self.config.train.nonfinite != "rollback":
            self.log.finding(finding.step, finding.to_json())
            raise Diverged(f"{error}. {self._advice()}") from error
        avoided = [*self.avoided, self.done]
        if len(avoided) > self.config.train.nonfinite_limit:
            raise Diverged(f"{error}, after {len(avoided) - 1} rollbacks. {self._advice()}") from error
        if not self._restore():
            raise Diverged(f"{error}, and there is no checkpoint to go back to. {self._advice()}") from error
        self.avoided = avoided
        self._reopen_logs(f"{error}: back to step {self.done}; that step will be passed over")
        self._report(finding)

    def _reopen_logs(self, words: str) -> None:
        """After a rollback: cut off what was logged since, and say so."""
        self.log.close()
        self.progress.say(words)
        self.progress.close()
        self._open_logs()

    def _advice(self) -> str:
        kept = checkpoints.checkpoints(self.folder / "checkpoints")
        newest = f"The checkpoint of step {int(kept[-1].name[-8:])} stands; " if kept else ""
        return f"{newest}try a lower optimizer.lr, train.clip_norm=1 or train.nonfinite=skip"


def total_steps(config: Config, num_examples: int, batches_per_step: int) -> int:
    """`train.steps`, or as many steps as `train.epochs` passes take."""
    if config.train.steps is not None:
        return config.train.steps
    if config.train.epochs is None:
        raise ConfigError("give train.steps or train.epochs")
    return math.ceil(config.train.epochs * num_examples / (config.train.batch_size * batches_per_step))
