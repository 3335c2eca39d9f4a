"""`run=latest`: the run that was started last, where runs are made and where `run.dir` puts them."""

import json
from pathlib import Path

import pytest

from genai_cli.errors import ConfigError
from genai_cli.locate import find_run


def make_run(folder: Path, started: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    (folder / "provenance.json").write_text(json.dumps({"started_utc": started}))
    (folder / "config.yaml").write_text("{}")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_latest_is_the_run_started_last_also_in_a_directory_of_its_own(here: Path) -> None:
    for hour in ("10", "11"):
        make_run(here / "outputs" / "2026-01-02" / f"{hour}-00-00_vae", f"2026-01-02T{hour}:00:00+00:00")
    assert find_run("latest", "outputs").name == "11-00-00_vae"
    make_run(here / "mine", "2026-01-02T10:30:00+00:00")
    assert find_run("latest", "outputs").name == "11-00-00_vae"
    make_run(here / "runs" / "second", "2026-01-02T12:30:00+00:00")
    assert find_run("latest", "outputs") == Path("runs/second")


def test_latest_of_another_root_is_one_of_those_in_it(here: Path) -> None:
    make_run(here / "mine", "2026-01-02T12:30:00+00:00")
    make_run(here / "other" / "2026-01-02" / "10-00-00_vae", "2026-01-02T10:00:00+00:00")
    assert find_run("latest", "other").name == "10-00-00_vae"
    make_run(here / "other" / "named", "2026-01-02T11:00:00+00:00")
    assert find_run("latest", "other") == Path("other/named")
    with pytest.raises(ConfigError, match=r"no run directory in root=othr; train one"):
        find_run("latest", "othr")


def test_a_config_of_something_else_is_no_run(here: Path) -> None:
    (here / "project").mkdir()
    (here / "project" / "config.yaml").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"no run directory in outputs, in the current directory or one folder deeper"
    ):
        find_run("latest", "outputs")


def test_a_run_without_a_record_of_its_start_is_the_oldest(here: Path) -> None:
    make_run(here / "one", "2026-01-02T10:30:00+00:00")
    (make_run(here / "two", "") / "provenance.json").write_text("no json")
    assert find_run("latest", "outputs") == Path("one")
