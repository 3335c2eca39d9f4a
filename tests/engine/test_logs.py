import json
import time
from pathlib import Path

import pytest
import torch

from genai_cli.engine.logs import RunLog, has_hyperparameters
from genai_cli.locate import last_metrics


def write(folder: Path, steps: range, *, first: int, tensorboard: bool = False, value: float = 0.0) -> None:
    log = RunLog(folder, first_step=first, tensorboard=tensorboard)
    for step in steps:
        log.numbers(step, {"loss": step + value})
    log.close()


def logged(folder: Path) -> list[tuple[int, float]]:
    return [
        (line["step"], line["loss"]) for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    ]


def test_lines_past_the_step_that_a_run_goes_on_from_are_cut(tmp_path: Path) -> None:
    write(tmp_path, range(1, 9), first=0)
    write(tmp_path, range(6, 8), first=5, value=0.5)
    assert logged(tmp_path) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6.5), (7, 7.5)]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 2}', "\xff\xfe", "[]\n", '"step"\n'])
def test_a_torn_line_is_cut(tmp_path: Path, torn: str) -> None:
    """Also one that is whole but for its end of line: the next line would be glued to it."""
    write(tmp_path, range(1, 3), first=0)
    with open(tmp_path / "metrics.jsonl", "a", encoding="latin-1") as file:
        file.write(torn)
    write(tmp_path, range(3, 4), first=2)
    assert logged(tmp_path) == [(1, 1), (2, 2), (3, 3)]


def test_a_log_that_is_not_written_leaves_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path, first_step=0, tensorboard=True, written=False)
    log.numbers(1, {"loss": 1.0})
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_nan_is_null_in_the_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path, first_step=0, tensorboard=False)
    log.numbers(1, {"loss": float("nan")})
    log.close()
    assert last_metrics(tmp_path) == {"step": 1, "loss": None}


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, range(1, 9), first=0, tensorboard=True)
    second = int(time.time())
    while int(time.time()) == second:  # files of events are read in the order of the second in their names
        time.sleep(0.01)
    write(tmp_path, range(6, 10), first=5, tensorboard=True, value=0.5)
    log = RunLog(tmp_path, first_step=9, tensorboard=True)
    log.hyperparameters(9, {"model.width": 4, "model.name": "vae"}, {"loss": 9.5})
    log.close()
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    points = [(event.step, event.value) for event in curves.Scalars("loss")]
    assert [point for point in points if point[0] < 9] == [
        (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6.5), (7, 7.5), (8, 8.5),
    ]  # fmt: skip
    assert set(points[8:]) == {(9, 9.5)}  # the table of hyperparameters repeats the last point
    sessions = [tag for tag in curves.summary_metadata if tag.startswith("_hparams_/session_start_info")]
    assert len(sessions) == 1


def test_a_sheet_is_a_file_and_a_card(tmp_path: Path) -> None:
    log = RunLog(tmp_path, first_step=0, tensorboard=False)
    log.sheet(5, "samples", torch.zeros(3, 4, 4, dtype=torch.uint8))
    log.sheet(5, "reconstruction", "some text")
    log.close()
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step-00000005-reconstruction.txt",
        "step-00000005.png",
    ]


def test_an_unwritable_log_warns_once_and_raises_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    write(tmp_path, range(1, 5), first=0)
    assert capsys.readouterr().err.count("warning") == 1


def test_the_table_of_hyperparameters_is_made_up_for_after_a_kill(tmp_path: Path) -> None:
    """A kill between the last save and the last entry: the same command has nothing to train, and writes the entry."""
    from genai_cli import cli
    from tests.reliability.harness import VAE

    words = ["train", *VAE, "train.steps=4", "logger.tensorboard=true", f"run.dir={tmp_path}/run"]
    assert cli.run(words) == 0
    assert has_hyperparameters(tmp_path / "run")
    for path in (tmp_path / "run" / "tensorboard").iterdir():
        path.unlink()
    assert not has_hyperparameters(tmp_path / "run")
    for _ in range(2):
        assert cli.run(words) == 0
        files = {path: path.stat().st_size for path in (tmp_path / "run" / "tensorboard").iterdir()}
        assert has_hyperparameters(tmp_path / "run")
    assert cli.run(words) == 0
    assert files == {path: path.stat().st_size for path in (tmp_path / "run" / "tensorboard").iterdir()}
