"""Checkpoints that survive a kill at any moment, and nothing in them that can run.

A checkpoint is a directory `step-00000500/` of safetensors (weights, average, optimizer state) and JSON (counters), with a
`manifest.json` of sizes and sha256 sums written last. It is written under a temporary name, flushed file by file, and
renamed into place; older ones are purged only afterwards. Loading takes the newest whose manifest verifies and
keeps a damaged one aside as `*.corrupt`.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.engine import faults
from genai_cli.engine.storage import sha256_of, sync_folder, to_json, write_durably
from genai_cli.errors import ConfigError, StorageError

FORMAT_VERSION = 1
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
    from safetensors.torch import save as to_safetensors

    folder.mkdir(exist_ok=True)
    final = folder / f"{_PREFIX}{checkpoint.step:08d}"
    if final.exists() and damage(final) is None and read(final).state == checkpoint.state:
        return final
    temporary = folder / f"{_SAVING}{checkpoint.step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    faults.point("storage")
    contents = {
        "model.safetensors": to_safetensors(_storable(checkpoint.model)),
        "optimizer.safetensors": to_safetensors(_storable(checkpoint.optimizer)),
        "state.json": to_json(checkpoint.state),
    }
    if checkpoint.ema:
        contents["ema.safetensors"] = to_safetensors(_storable(checkpoint.ema))
    try:
        files = {
            name: {"sha256": write_durably(temporary / name, content), "bytes": len(content)}
            for name, content in contents.items()
        }
        manifest = {"format_version": FORMAT_VERSION, "step": checkpoint.step, "files": files}
        write_durably(temporary / "manifest.json", to_json(manifest))
        sync_folder(temporary)
        if final.exists():  # damaged, or saved by a signal in the middle of the work that ends this step
            _delete(final)
        os.rename(temporary, final)
        faults.point("storage")
        sync_folder(folder)
    except StorageError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _purge(folder, keep=keep, best_step=best_step)
    return final


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest valid checkpoint, or None if there never was one. Damaged ones are renamed `*.corrupt`, with a warning.

    Raises StorageError if there are checkpoints and none is valid: never a silent start from zero.
    """
    remove_unfinished(folder)
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
        raise StorageError(f"no valid checkpoint in {folder}")
    if which == "last":
        return read(valid[max(valid)])
    if which == "best":
        best = read(valid[max(valid)]).state.get("best")
        if best is None:
            raise ConfigError("checkpoint=best: this run kept none; its model is not evaluated, or train.evaluate_every is null")
        which = str(best["step"])
    if not which.isdecimal() or int(which) not in valid:
        steps = ", ".join(str(step) for step in sorted(valid))
        raise ConfigError(f"checkpoint={which} is not there; choose last, best or one of the steps {steps}")
    return read(valid[int(which)])


def checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoint directories, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal())


def damage(path: Path) -> str | None:
    """What is wrong with the checkpoint at `path`, in words that name the file; None if it is whole."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        version = manifest["format_version"]
        files = {str(name): (record["bytes"], record["sha256"]) for name, record in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{path / 'manifest.json'} is missing or unreadable"
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{path} has checkpoint format {version}, this version of genai reads format {FORMAT_VERSION}; "
            "use the version that wrote it"
        )
    if not {"model.safetensors", "optimizer.safetensors", "state.json"} <= set(files):
        return f"{path / 'manifest.json'} does not list all files"
    for name, (size, digest) in files.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != size or sha256_of(file) != digest:
            return f"{file} does not match its manifest"
    return None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint that `damage` found whole. Runs nothing that it contains."""
    from safetensors.torch import load_file

    state = json.loads((path / "state.json").read_bytes())
    ema = path / "ema.safetensors"
    return Checkpoint(
        step=int(path.name.removeprefix(_PREFIX)),
        model=load_file(path / "model.safetensors"),
        ema=load_file(ema) if ema.is_file() else {},
        optimizer=load_file(path / "optimizer.safetensors"),
        state=state,
    )


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed save or purge left behind."""
    for prefix in (_SAVING, _DELETING):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)


def all_finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


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


def _purge(folder: Path, *, keep: int, best_step: int | None) -> None:
    """Delete older checkpoints. One that will not go is reported, and training goes on."""
    for path in checkpoints(folder)[:-keep]:
        if int(path.name.removeprefix(_PREFIX)) == best_step:
            continue
        try:
            _delete(path)
        except OSError as error:
            print(f"warning: cannot delete the old checkpoint {path}: {error}", file=sys.stderr)


def _delete(path: Path) -> None:
    """Take the checkpoint out of sight in one move, then remove its files."""
    condemned = path.with_name(_DELETING + path.name)
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
