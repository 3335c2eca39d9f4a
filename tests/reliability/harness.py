"""`genai` in real processes that can be killed, at a twentieth of the price: torch is imported once, then forked.

Run as a program this file is the server: it imports everything, then forks a child for each request, which runs
`genai_cli.cli.run` and dies as a process dies. `Genai` is the client that tests use.
"""

import atexit
import faulthandler
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# A small run with logs, evaluation, saves, a best checkpoint and an average of the weights.
TINY = (
    "dataset=toy2d", "dataset.size=40", "dataset.held_out=16", "train.batch_size=8", "train.num_samples=4",
    "train.log_every=2", "train.evaluate_every=3", "train.sample_every=null", "train.save_every=2", "train.ema=0.9",
    "train.keep=2", "logger.tensorboard=false", "device=cpu", "seed=1",
)  # fmt: skip
VAE = ("model=vae", "model.width=4", "model.latent_dim=2", *TINY)
GAN = ("model=gan", "model.width=4", "model.latent_dim=2", *TINY)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal that killed it) and what it said."""

    code: int
    out: str
    err: str


class Process:
    """A running `genai`."""

    def __init__(self, server: "Genai", pid: int, outputs: Path):
        self.server, self.pid, self.outputs = server, pid, outputs

    def wait(self, seconds: float = 60) -> Ended:
        """Its end; if it does not come in time, kill it and fail."""
        code = self.server.ask({"wait": self.pid, "seconds": seconds})
        texts = [self.outputs.with_suffix(suffix).read_text(errors="replace") for suffix in (".out", ".err")]
        assert code is not None, f"still running after {seconds} s\n{texts[0]}\n{texts[1]}"
        return Ended(code, *texts)

    def wait_until_stopped(self, seconds: float = 60) -> None:
        """Until a fault of kind "stop" has frozen it."""
        deadline = time.monotonic() + seconds
        while Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < deadline, "not stopped"
            time.sleep(0.01)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def send_to_group(self, number: int) -> None:
        os.killpg(self.pid, number)


class Genai:
    """Starts `genai` processes. `folder` is where they work and where their words are kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.count = 0
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, *words: str, fault: str = "", **environment: str) -> Process:
        self.count += 1
        outputs = self.folder / f"process-{self.count}"
        for suffix in (".out", ".err"):  # there even if it is killed before it could speak
            outputs.with_suffix(suffix).touch()
        request = {
            "words": words, "fault": fault, "environment": environment, "folder": str(self.folder),
            "outputs": str(outputs),
        }  # fmt: skip
        return Process(self, self.ask(request), outputs)

    def run(self, *words: str, fault: str = "", seconds: float = 60, **environment: str) -> Ended:
        return self.start(*words, fault=fault, **environment).wait(seconds)

    def ask(self, request: dict[str, Any]) -> Any:
        assert self.server.stdin is not None and self.server.stdout is not None
        assert self.server.poll() is None, f"the server of processes has died: {self.server.returncode}"
        print(json.dumps(request), file=self.server.stdin, flush=True)
        answer = self.server.stdout.readline()
        assert answer, f"the server of processes died: {self.server.wait()}"
        return json.loads(answer)

    def close(self) -> None:
        self.server.communicate(timeout=10)  # ends its input, and with it the server


def command(*words: str, **environment: str) -> list[str]:
    """The true console command, for the few tests that must not trust a fork."""
    return [sys.executable, "-m", "genai_cli", *words]


def final_files(run: Path) -> dict[str, bytes]:
    """The bytes of everything in the newest checkpoint of a run, and its log without what a clock wrote."""
    newest = sorted(run.glob("checkpoints/step-????????"))[-1]
    files = {f"{newest.name}/{path.name}": path.read_bytes() for path in newest.iterdir()}
    return {**files, "metrics.jsonl": json.dumps(log_lines(run)).encode()}


def log_lines(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def leftovers(run: Path) -> list[str]:
    """What only a save in progress may have."""
    return [path.name for pattern in (".saving-*", ".deleting-*") for path in run.glob(f"checkpoints/{pattern}")]


# -- the server -----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests, one line of JSON each, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_everything()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        answer = _wait(request["wait"], request["seconds"]) if "wait" in request else _fork(request)
        print(json.dumps(answer), flush=True)


def _import_everything() -> None:
    """Sample a small run in this process: it imports, and fills the caches of, all that its children will need."""
    import contextlib
    import io

    import torch.distributed.fsdp  # noqa: F401

    from genai_cli import cli

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for name, words in {"vae": VAE, "gan": GAN}.items():
            assert cli.run(["train", *words, "train.steps=2", "train.sample_every=2", f"run.dir={folder}/{name}"]) == 0
            assert cli.run(["sample", f"run={folder}/{name}", "num_samples=2", "device=cpu"]) == 0
        assert cli.run(["evaluate", f"run={folder}/vae", "metrics=[figures]", "device=cpu"]) == 0
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"


def _fork(request: Mapping[str, Any]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _be_genai(request)
    return pid


def _be_genai(request: Mapping[str, Any]) -> None:
    from genai_cli import cli
    from genai_cli.engine import faults

    os.setsid()
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(request["outputs"] + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    faults.plan(request["fault"])
    code = cli.run(request["words"])
    atexit._run_exitfuncs()  # as the interpreter does: it waits for worker processes, for one
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(pid: int, seconds: float) -> int | None:
    """The exit code of a child, or None after killing it because it took too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGUSR1)  # it writes where it hangs into its errors
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    serve()
