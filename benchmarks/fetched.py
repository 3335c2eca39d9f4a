"""Packages to measure beside ours, fetched on demand into a folder of their own.

They come without what they share with us: all are measured on the same torch, and our environment stays as it was.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def fetch(module: str, packages: Sequence[str]) -> str | None:
    """Make `module` importable. `packages` are its own, pinned, and what it needs that we have not.

    Returns why it cannot be measured, if so.
    """
    folder = HERE / f".venv-{module}"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if find_spec(module) is not None:
        return None
    pip = [shutil.which("uv"), "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
    python = ["--python", sys.executable] if shutil.which("uv") else []
    command = [*pip, "install", "--quiet", "--no-deps", "--target", str(folder), *python, *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    invalidate_caches()
    return f"{module} could not be installed: {done.stderr.strip()}" if done.returncode else None
