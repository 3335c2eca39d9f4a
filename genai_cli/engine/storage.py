"""Files that are whole or not there: every write that a promise rests on goes through here.

Each operation ends in a fault point, so that a test can kill the process after any one of them.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genai_cli.engine import faults, watchdog
from genai_cli.errors import StorageError


def write_durably(path: Path, content: bytes, *, needed: int | None = None) -> str:
    """Write `content` to `path` and through to the disk. Returns its sha256, as hex.

    Raises StorageError, which says of a full disk how many bytes are `needed`; null: those of `content`.
    """
    watchdog.beat()
    with reported(path, needed=needed or len(content)):
        with open(path, "wb") as file:
            faults.point("storage")
            file.write(content)
            file.flush()
            faults.point("storage")
            os.fsync(file.fileno())
        faults.point("storage")
    return hashlib.sha256(content).hexdigest()


def replace_durably(path: Path, content: bytes) -> None:
    """Give `path` new content in one move: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_durably(temporary, content)
        with reported(path, needed=len(content)):
            os.replace(temporary, path)
            faults.point("storage")
            sync_folder(path.parent)
    except StorageError:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    faults.point("storage")


@contextmanager
def reported(path: Path, *, needed: int) -> Iterator[None]:
    """Within, an OSError becomes a StorageError that names `path`; of a full disk, also the bytes `needed` and free."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(path.parent).free
            reason = f"the disk is full ({needed:,} bytes needed, {free:,} free); free some space and resume the run"
        raise StorageError(f"cannot write {path}: {reason}") from error


def warning_of_little_space(folder: Path, *, checkpoint: int) -> str | None:
    """Words if the disk may fill up before the end: a save needs `checkpoint` bytes beside those of the one before."""
    free = shutil.disk_usage(folder).free
    if free >= 2 * checkpoint:
        return None
    return (
        f"{folder} has {free:,} bytes free, and a checkpoint takes about {checkpoint:,}: a save may fail. "
        "Free some space, or choose another disk with run.dir or run.root"
    )


def to_json(record: Any) -> bytes:
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(folder: Path, typed: str) -> None:
    """Refuse work whose result could not be written into `folder`, which is left as it is. Raises StorageError.

    `typed` is what names the folder, such as out=FILE in it.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StorageError(f"{typed}: no file can be written in {folder}: {error.strerror}; name another") from error
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
