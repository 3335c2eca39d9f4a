"""T18 and T19: every run has a directory of its own, and a directory one run at a time."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genai_cli.locate import make_directory
from tests.reliability.harness import VAE, Genai

ENDLESS = ("train", *VAE, "train.steps=1000000", "train.save_every=null", "train.evaluate_every=null")


def test_fifty_runs_of_one_second_get_fifty_directories_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instant = time.gmtime()
    monkeypatch.setattr(time, "gmtime", lambda: instant)
    made = [make_directory(folder, "vae_toy2d") for _ in range(10)]
    with ThreadPoolExecutor(8) as pool:
        made += pool.map(lambda _: make_directory(folder, "vae_toy2d"), range(40))
    assert len(set(made)) == 50
    assert made[:10] == sorted(made)[:10]


def test_names_sort_by_start_through_a_change_of_time_zone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for zone in ("Pacific/Kiritimati", "America/Los_Angeles", "Asia/Kolkata", "UTC"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        made.append(make_directory(folder, "run"))
    monkeypatch.undo()
    time.tzset()
    assert made == sorted(made)


def test_a_directory_in_use_is_refused_and_a_dead_owner_lets_go(genai: Genai, folder: Path) -> None:
    run = folder / "run"
    owner = genai.start(*ENDLESS, f"run.dir={run}")
    deadline = time.monotonic() + 30
    while not (run / "metrics.jsonl").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = (run / "config.yaml").stat().st_mtime_ns
    for words in (("train", f"run={run}"), (*ENDLESS, f"run.dir={run}")):
        refused = genai.run(*words)
        assert refused.code == 7
        assert f"process {owner.pid} on {os.uname().nodename}" in refused.err
        assert len(refused.err.splitlines()) == 1
    assert (run / "config.yaml").stat().st_mtime_ns == before
    owner.send(signal.SIGKILL)
    assert owner.wait().code == -signal.SIGKILL
    assert genai.run("train", f"run={run}", fault="step:term:1").code == 143
