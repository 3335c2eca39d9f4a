"""Files that are whole or not there: every write that a promise rests on goes through here.

Each operation ends in a fault point, so that a test can kill the process after any one of them.
"""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from genai_cli.engine import faults
from genai_cli.errors import StorageError


def write_durably(path: Path, content: bytes) -> str:
    """Write `content` to `path` and through to the disk. Returns its sha256, as hex."""
    try:
        with open(path, "wb") as file:
            faults.point("storage")
            file.write(content)
            file.flush()
            faults.point("storage")
            os.fsync(file.fileno())
    except OSError as error:
        raise _storage_error(error, path, len(content)) from error
    faults.point("storage")
    return hashlib.sha256(content).hexdigest()


def replace_durably(path: Path, content: bytes) -> None:
    """Give `path` new content in one move: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_durably(temporary, content)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    faults.point("storage")


def to_json(record: Any) -> bytes:
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _storage_error(error: OSError, path: Path, needed: int) -> StorageError:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        free = shutil.disk_usage(path.parent).free
        reason = f"the disk is full ({needed:,} bytes needed, {free:,} free); free some space and resume the run"
    return StorageError(f"cannot write {path}: {reason}")
