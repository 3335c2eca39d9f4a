"""From `device=auto` to a torch device, with threads, memory and precision seen to."""

import os
import sys

import torch

from genai_cli.config import DeviceConfig
from genai_cli.engine.memory import keep_freed_pages
from genai_cli.errors import ConfigError


def choose_device(config: DeviceConfig) -> torch.device:
    """The device that `config` asks for; this process is made ready. Raises ConfigError if there is none such."""
    keep_freed_pages()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    name = config.name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no CUDA device here; choose device=cpu or device=auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: torch sees no Metal device here; choose device=cpu or device=auto")
    if config.precision == "bf16" and name == "cpu" and not _cpu_has_bf16():
        print(
            "warning: this CPU has no bf16 instructions: device.precision=bf16 will be far slower than fp32",
            file=sys.stderr,
        )
    if name == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    return torch.device(name)


def _cpu_has_bf16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read()
    except OSError:
        return True  # unknown: say nothing
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16", "asimdbf16"))
