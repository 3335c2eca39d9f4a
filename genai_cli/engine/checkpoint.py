"""Checkpoints that survive a kill at any moment, and nothing in them that can run.

A checkpoint is a directory `step-00000500/` of safetensors (weights, average, optimizer state) and JSON (counters),
with a `manifest.json` of sizes and sha256 sums written last. It is written under a temporary name, flushed file by
file, and renamed into place; older ones are purged only afterwards. Loading takes the newest whose manifest verifies
and keeps a damaged one aside as `*.corrupt`.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.base import DataError
from genai_cli.engine import faults
from genai_cli.engine.storage import reported, sha256_of, sync_folder, to_json, write_durably
from genai_cli.errors import ConfigError, StorageError

FORMAT_VERSION = 1
_FILES = {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
_PREFIX = "step-"
_SAVING, _DELETING = ".saving-", ".deleting-"  # prefixes of what a kill may leave behind


@dataclass
class Checkpoint:
    """All that a run needs to go on as if it had never stopped."""

    step: int
    model: dict[str, Tensor]  # raw weights and buffers
    ema: dict[str, Tensor] = field(default_factory=dict)  # empty: the run keeps no average
    optimizer: dict[str, Tensor] = field(default_factory=dict)  # "GROUP/PARAMETER/SLOT"
    state: dict[str, Any] = field(default_factory=dict)  # counters and sums, JSON


def save(checkpoint: Checkpoint, folder: Path, *, keep: int, best_step: int | None = None) -> Path:
    """Commit `checkpoint` under `folder`, then purge all but the `keep` newest and the best.

    Raises StorageError if it cannot be written (what was there before is untouched).
    """
    final = folder / f"{_PREFIX}{checkpoint.step:08d}"
    if final.exists() and damage(final) is None and json.loads((final / "state.json").read_bytes()) == checkpoint.state:
        return final
    contents = _serialised(checkpoint)
    temporary = folder / f"{_SAVING}{checkpoint.step:08d}"
    with reported(final, needed=sum(map(len, contents.values()))):
        folder.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            faults.point("storage")
            _write_all(temporary, contents, checkpoint.step)
            _put_in_place(temporary, final)
        except (OSError, StorageError):
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(folder)
    _purge(folder, keep=keep, best_step=best_step)
    return final


def _serialised(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The content of each file, by name."""
    from safetensors.torch import save as to_safetensors

    tensors = {"model": checkpoint.model, "ema": checkpoint.ema, "optimizer": checkpoint.optimizer}
    contents = {f"{name}.safetensors": to_safetensors(_storable(members)) for name, members in tensors.items()}
    return {**contents, "state.json": to_json(checkpoint.state)}


def _write_all(folder: Path, contents: dict[str, bytes], step: int) -> None:
    needed = sum(map(len, contents.values()))
    files = {
        name: {"sha256": write_durably(folder / name, content, needed=needed), "bytes": len(content)}
        for name, content in contents.items()
    }
    manifest = {"format_version": FORMAT_VERSION, "step": step, "files": files}
    write_durably(folder / "manifest.json", to_json({**manifest, "sha256": _manifest_sum(manifest)}))
    sync_folder(folder)


def _put_in_place(temporary: Path, final: Path) -> None:
    """Give the finished checkpoint its name, in place of a damaged one or one from the middle of this step's work.

    Between the two moves neither has the name: a kill there is mended by `finish_or_remove`.
    """
    condemned = final.with_name(_DELETING + final.name)
    if final.exists():
        shutil.rmtree(condemned, ignore_errors=True)
        os.rename(final, condemned)
    try:
        faults.point("storage")
        os.rename(temporary, final)
    except OSError:
        if condemned.exists():
            os.rename(condemned, final)
        raise
    faults.point("storage")
    shutil.rmtree(condemned, ignore_errors=True)


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest valid checkpoint, or None if there never was one. Damaged ones are renamed `*.corrupt`, and warned of.

    Raises StorageError if there are checkpoints and none is valid: never a silent start from zero.
    """
    finish_or_remove(folder)
    damaged = []
    for path in reversed(checkpoints(folder)):
        problem = damage(path)
        if problem is None:
            return read(path)
        aside = _free_name(path.with_name(path.name + ".corrupt"))
        path.rename(aside)
        damaged.append(problem)
        print(f"warning: {problem}; kept aside as {aside.name}, going back to the one before", file=sys.stderr)
    if damaged or list(folder.glob("*.corrupt")):
        raise StorageError(f"no valid checkpoint is left in {folder}; give a new run.dir to start again")
    return None


def load(folder: Path, which: str) -> Checkpoint:
    """The checkpoint that the user names: "last", "best" or a step. Leaves the folder as it is."""
    existing = {int(path.name.removeprefix(_PREFIX)): path for path in checkpoints(folder)}
    valid = {step: path for step, path in existing.items() if damage(path) is None}
    if not valid:
        why = f"none is saved yet; genai train run={folder.parent} goes on with it"
        if existing:
            why = "none is whole; bring one back, or start another run"
        raise StorageError(f"no valid checkpoint in {folder}: {why}")
    if which == "last":
        return read(valid[max(valid)])
    if which == "best":
        best = read(valid[max(valid)]).state.get("best")
        if best is None:
            raise ConfigError(
                "checkpoint=best: this run kept none; its model is not evaluated, or train.evaluate_every is null"
            )
        which = str(best["step"])
    if not which.isdecimal() or int(which) not in valid:
        steps = ", ".join(str(step) for step in sorted(valid))
        raise ConfigError(f"checkpoint={which} is not there; choose last, best or one of the steps {steps}")
    return read(valid[int(which)])


def checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoint directories, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal())


def is_there(folder: Path, step: int) -> bool:
    """Whether a checkpoint of `step` was committed under `folder` and not purged since, whole or not."""
    return (folder / f"{_PREFIX}{step:08d}").is_dir()


def damage(path: Path) -> str | None:
    """What is wrong with the checkpoint at `path`, in words that name the file; None if it is whole.

    Raises ConfigError if it is whole as far as this version can tell, but of another format.
    """
    manifest_file = path / "manifest.json"
    try:
        manifest = json.loads(manifest_file.read_bytes())
        if manifest.pop("sha256") != _manifest_sum(manifest):
            return f"{manifest_file} does not match its own sum"
        version = manifest["format_version"]
        if version != FORMAT_VERSION:
            raise ConfigError(
                f"{path} has checkpoint format {version}, this version of genai reads format {FORMAT_VERSION}; "
                "use the version that wrote it"
            )
        files = {str(name): (record["bytes"], record["sha256"]) for name, record in manifest["files"].items()}
        if set(files) != _FILES or not path.name.endswith(f"-{manifest['step']:08d}"):
            return f"{manifest_file} is not the one of this checkpoint"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{manifest_file} is missing or unreadable"
    for name, (size, digest) in files.items():
        file = path / name
        try:
            if file.stat().st_size != size or sha256_of(file) != digest:
                return f"{file} does not match its manifest"
        except (FileNotFoundError, IsADirectoryError):  # purged by its run, it may be, while it is looked at
            return f"{file} is missing"
    return None


def _manifest_sum(manifest: dict[str, Any]) -> str:
    """The sum under "sha256" in a manifest, over the rest of it: the same in every format, for any version to check."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> Checkpoint:
    """Read a checkpoint that `damage` found whole. Runs nothing in it. Raises DataError if it is none of ours."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((path / "state.json").read_bytes())
        if not isinstance(state, dict):
            raise ValueError("state.json holds no object")
        return Checkpoint(
            step=int(path.name.removeprefix(_PREFIX)),
            model=load_file(path / "model.safetensors"),
            ema=load_file(path / "ema.safetensors"),
            optimizer=load_file(path / "optimizer.safetensors"),
            state=state,
        )
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not to be trusted: it is none of genai's formats ({error})") from error


def weights_sum(folder: Path, step: int) -> str:
    """sha256 of the weights and their average at `step`, of a checkpoint that `load` found whole."""
    files = json.loads((folder / f"{_PREFIX}{step:08d}" / "manifest.json").read_bytes())["files"]
    sums = [files[name]["sha256"] for name in ("model.safetensors", "ema.safetensors")]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def finish_or_remove(folder: Path) -> None:
    """Give a checkpoint that was whole when its save was killed its name; remove all else that a kill left behind."""
    for path in folder.glob(f"{_SAVING}*"):
        final = folder / f"{_PREFIX}{path.name.removeprefix(_SAVING)}"
        if not final.exists() and damage(path) is None:
            os.rename(path, final)
    for prefix in (_SAVING, _DELETING):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)


def first_non_finite(tensors: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity."""
    is_finite = {name: torch.isfinite(tensor).all() for name, tensor in tensors.items() if tensor.is_floating_point()}
    return next((name for name, holds in is_finite.items() if not holds), None)


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two of which share memory (tied weights are stored under each of their names)."""
    stored: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.numel() and tensor.data_ptr() in addresses:
            tensor = tensor.clone()
        addresses.add(tensor.data_ptr())
        stored[name] = tensor
    return stored


def discard_from(folder: Path, step: int) -> None:
    """Delete the checkpoints of `step` and after: a rollback goes back beyond them, for good."""
    for path in checkpoints(folder):
        if int(path.name.removeprefix(_PREFIX)) >= step:
            _delete(path)


def _purge(folder: Path, *, keep: int, best_step: int | None) -> None:
    """Delete older checkpoints."""
    discard([path for path in checkpoints(folder)[:-keep] if int(path.name.removeprefix(_PREFIX)) != best_step])


def discard(paths: Iterable[Path]) -> None:
    """Delete checkpoints. One that will not go is reported, and training goes on."""
    for path in paths:
        try:
            _delete(path)
        except OSError as error:
            print(f"warning: cannot delete the old checkpoint {path}: {error}", file=sys.stderr)


def _delete(path: Path) -> None:
    """Take the checkpoint out of sight in one move, then remove its files."""
    condemned = path.with_name(_DELETING + path.name)
    shutil.rmtree(condemned, ignore_errors=True)
    os.rename(path, condemned)
    faults.point("storage")
    shutil.rmtree(condemned)
    faults.point("storage")


def _free_name(path: Path) -> Path:
    name, number = path, 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}-{number}")
    return name
