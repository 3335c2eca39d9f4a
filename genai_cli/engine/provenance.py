"""Where a run came from: enough to do it again."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from genai_cli import __version__
from genai_cli.engine.distributed import World


def provenance(*, device: torch.device, world: World, data: dict[str, Any], parameters: int) -> dict[str, Any]:
    """Command, code, versions and machine, as JSON. Environment variables are left out: they hold secrets."""
    return {
        "command": shlex.join(sys.orig_argv[1:]),
        "started_utc": _now(),
        "genai": __version__,
        **_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu_threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "world_size": world.size,
        "data": data,
        "parameters": parameters,
    }


def _now() -> str:
    import datetime

    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _commit() -> dict[str, Any]:
    """The commit of a checkout and whether it had changes; nothing for an installed package."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
