"""Where a run's numbers and pictures go: `metrics.jsonl`, TensorBoard and the terminal.

A log that cannot be written costs one warning, never the training. What a killed run had logged past its newest
checkpoint is cut off when it resumes, so that no step appears twice.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from torch import Tensor

from genai_cli.media.files import write_file, write_sheet
from genai_cli.media.sounds import wav_bytes

Sheet = Tensor | str  # (3, H, W) uint8, or text


def _harmless(write: Callable[..., None]) -> Callable[..., None]:
    """Turn the first OSError of a log into a warning and later ones into nothing."""

    @wraps(write)
    def guarded(log: "RunLog", *arguments: Any, **options: Any) -> None:
        if not log.written:
            return
        try:
            write(log, *arguments, **options)
        except OSError as error:
            if not log.warned:
                print(f"warning: the logs cannot be written ({error}); training goes on without them", file=sys.stderr)
            log.warned = True

    return guarded


class RunLog:
    """The log of one run directory, from `first_step` on. Where it is not `written` (ranks past the first), mute."""

    def __init__(self, folder: Path, *, first_step: int, tensorboard: bool, written: bool = True):
        self.folder = folder
        self.first_step = first_step
        self.written = written
        self.warned = False
        self._with_tensorboard = tensorboard
        self._writer: Any = None
        self._cut(folder / "metrics.jsonl")
        self._cut(folder / "findings.jsonl")

    @_harmless
    def numbers(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl and one point on each curve."""
        record = {"step": step, **{key: _json_number(value) for key, value in values.items()}}
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._tensorboard():
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)
            self._writer.flush()

    @_harmless
    def sheet(self, step: int, name: str, sheet: Sheet) -> None:
        """A picture or a text: a file of `samples/` and a card in TensorBoard."""
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        write_sheet(sheet, folder / f"step-{step:08d}{'' if name == 'samples' else '-' + name}")
        if self._tensorboard():
            if isinstance(sheet, str):
                self._writer.add_text(name, _as_markdown(sheet), step)
            else:
                self._writer.add_image(name, sheet, step)
            self._writer.flush()

    @_harmless
    def sound(self, step: int, name: str, sound: tuple[Tensor, int]) -> None:
        """Samples (T,) in [-1, 1] and their rate: a WAV file of `samples/` and a player in TensorBoard."""
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        write_file(folder / f"step-{step:08d}.wav", wav_bytes(sound[0], sample_rate=sound[1]))
        if self._tensorboard():
            self._writer.add_audio(name, sound[0][None], step, sample_rate=sound[1])
            self._writer.flush()

    @_harmless
    def finding(self, step: int, record: dict[str, Any]) -> None:
        """One line of findings.jsonl, and a card in TensorBoard."""
        with open(self.folder / "findings.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self._tensorboard():
            self._writer.add_text(f"findings/{record['name']}", _as_markdown(record["evidence"]), step)
            self._writer.flush()

    @_harmless
    def hyperparameters(self, step: int, parameters: dict[str, Any], metrics: dict[str, float]) -> None:
        """The HParams tab: once, at the end. `metrics` repeat the last points of their curves, at `step`."""
        if self._tensorboard():
            self._writer.add_hparams(parameters, metrics, run_name=".", global_step=step)

    @_harmless
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> bool:
        """Open the writer at its first use: its import would delay the first step."""
        if self._with_tensorboard and self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.first_step + 1)
            except OSError:
                raise
            except Exception as error:  # whatever ails an installation of it
                print(f"warning: TensorBoard cannot be used ({error}); metrics.jsonl has all numbers", file=sys.stderr)
                self._with_tensorboard = False
        return self._with_tensorboard

    @_harmless
    def _cut(self, path: Path) -> None:
        """Cut off, in one move, the lines of steps after `first_step` and a last line that a kill tore."""
        if not path.is_file():
            return
        end = position = 0
        for line in path.read_bytes().splitlines(keepends=True):
            position += len(line)
            if line.endswith(b"\n") and _step_of(line) <= self.first_step:
                end = position
        os.truncate(path, end)


def has_hyperparameters(folder: Path) -> bool:
    """Whether the HParams tab of a run has its entry: one that was killed after its last save has none yet."""
    events = folder.glob("tensorboard/events.out.tfevents.*")
    return any(b"_hparams_/session_end_info" in path.read_bytes() for path in events)


def _step_of(line: bytes) -> float:
    """The step of a line of metrics.jsonl; of one that cannot be read, later than any."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_markdown(text: str) -> str:
    """`text` as TensorBoard should show it: each line indented, so that nothing in it is markup."""
    return "\n".join("    " + line for line in text.splitlines())


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"name": "gan"}} -> {"model.name": "gan"}, with values that HParams takes."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        else:
            flat[prefix + key] = str(value)
    return flat
