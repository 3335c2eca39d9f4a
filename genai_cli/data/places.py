"""Where a data set may lie: the folder `dataset.root`, else $GENAI_DATA, else the user's cache."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from genai_cli.data.base import DataError

VARIABLE = "GENAI_DATA"


def roots(root: str | None) -> list[Path]:
    """The folders to look in, in order; downloads go into the first of them."""
    if root is not None:
        return [Path(root).expanduser()]
    return [Path(os.environ[VARIABLE]).expanduser(), cache()] if os.environ.get(VARIABLE) else [cache()]


def cache() -> Path:
    """The user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "genai"


def find(root: str | None, names: Iterable[str]) -> Path | None:
    """The first of `names` (paths below a root) that is there."""
    names = list(names)
    for folder in roots(root):
        for name in names:
            if (folder / name).exists():
                return folder / name
    return None


def missing(what: str, root: str | None, names: Sequence[str], *, remedy: str) -> DataError:
    """The error for a data set that is nowhere: what was looked for and where, and what to do."""
    looked = " or ".join(str(folder) for folder in roots(root))
    setting = "" if root is not None or os.environ.get(VARIABLE) else f" (dataset.root and {VARIABLE} are not set)"
    return DataError(f"{what} is not there: no {' or '.join(names)} in {looked}{setting}; {remedy}")
