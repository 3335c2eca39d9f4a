"""Facts about the watchdog's arithmetic, on a clock of the test's own; what it ends is in tests/reliability."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from genai_cli.engine import watchdog
from genai_cli.engine.distributed import World
from genai_cli.errors import ExitCode

TIMEOUT = 10.0  # seconds: it looks every half of one


@pytest.fixture
def silences(monkeypatch: pytest.MonkeyPatch):
    """Run the watch over (seconds between two looks, whether there is a beat before the second) and so many times.

    Returns the silence that it ended the run for, or None.
    """
    clock = SimpleNamespace(now=1000.0)
    ended: list[float] = []
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(watchdog, "_last_beat", clock.now)
    monkeypatch.setattr(watchdog, "_end", lambda silent, folder, world: ended.append(silent))

    def watch(*stretches: tuple[float, bool, int]) -> float | None:
        looks = [(seconds, is_beat) for seconds, is_beat, times in stretches for _ in range(times)]

        def wait(period: float) -> bool:
            if ended or not looks:
                return True
            seconds, is_beat = looks.pop(0)
            clock.now += seconds
            if is_beat:
                watchdog.beat()
            return False

        watchdog._watch(TIMEOUT, Path(), World(), SimpleNamespace(wait=wait))
        return next(iter(ended), None)

    return watch


ALIVE, SILENT = (0.5, True, 30), (0.5, False, 30)


@pytest.mark.parametrize("before", [[], [ALIVE]], ids=["at the start", "later"])
def test_a_silence_longer_than_the_timeout_ends_the_run(silences, before: Sequence[tuple[float, bool, int]]) -> None:
    assert silences(*before, SILENT) == 10.5


def test_beats_keep_it_alive_and_so_does_a_silence_up_to_the_timeout(silences) -> None:
    assert silences(ALIVE, (0.5, False, 20), ALIVE) is None


def test_time_in_which_the_process_was_stopped_does_not_count(silences) -> None:
    assert silences(ALIVE, (3600.0, False, 1), (0.5, False, 15), ALIVE) is None


def test_a_silence_counts_in_full_once_there_was_a_beat_after_a_stop(silences) -> None:
    assert silences((3600.0, False, 1), (0.5, True, 1), SILENT) == 10.5


def test_the_end_is_told_on_the_terminal_in_a_file_and_to_the_other_processes(monkeypatch, tmp_path, capfd) -> None:
    said: list[str] = []
    codes: list[int] = []
    killed: list[bool] = []
    child = SimpleNamespace(kill=lambda: killed.append(True))
    monkeypatch.setattr(watchdog, "multiprocessing", SimpleNamespace(active_children=lambda: [child]))
    monkeypatch.setattr(watchdog.os, "_exit", codes.append)
    watchdog._end(12.4, tmp_path, SimpleNamespace(rank=1, size=2, leave_word=said.append))
    words = "process 1 of 2: nothing has happened for 12 s (device.timeout)"
    assert said == [words] and codes == [ExitCode.HUNG] and killed == [True]
    report = (tmp_path / "stacks-1.txt").read_text()
    assert report.startswith(words) and Path(__file__).name in report
    assert words in capfd.readouterr().err
