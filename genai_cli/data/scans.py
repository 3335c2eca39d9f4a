"""What a scan of a folder found, in the user's cache: a file is read again only if its size or time has changed."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from genai_cli.data.places import cache

_FORMAT = 1  # another number, where what is found of a file means something else
_DIGEST = re.compile(r"[0-9a-f]{64}")

Finding = tuple[int, int, str, str]  # size, time of change in ns, digest of the picture or "", reason why it has none


def stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, by which it is recognised; None where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def remembered(folder: Path) -> dict[str, Finding]:
    """What is known of the files below `folder`, by name; nothing where the note is missing or is none of ours."""
    try:
        record = json.loads(_note(folder).read_text(encoding="ascii"))
        found = {str(name): tuple(finding) for name, finding in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    is_ours = record["format"] == _FORMAT and record["folder"] == os.path.realpath(folder)
    return found if is_ours and all(map(_is_finding, found.values())) else {}


def remember(folder: Path, found: Mapping[str, Finding]) -> None:
    """Keep what was found, whole or not at all. A cache that cannot be written costs the next scan, no more."""
    note = _note(folder)
    record = {"format": _FORMAT, "folder": os.path.realpath(folder), "files": found}
    temporary = note.with_name(f".{note.name}.{os.getpid()}")
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record), encoding="ascii")
        os.replace(temporary, note)


def _note(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return cache() / "scans" / f"{name}.json"


def _is_finding(finding: tuple[object, ...]) -> bool:
    match finding:
        case (int(), int(), str(digest), str(reason)):
            return (_DIGEST.fullmatch(digest) is not None) != bool(reason) and (digest == "" or reason == "")
    return False
