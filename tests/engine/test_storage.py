"""What cannot be written is refused before the work whose result it would be."""

from pathlib import Path

import pytest

from genai_cli.engine.storage import check_writable
from genai_cli.errors import StorageError


def test_a_folder_that_can_be_made_is_left_unmade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    check_writable(tmp_path / "there" / "a" / "b", "out=b")
    monkeypatch.chdir(tmp_path)
    check_writable(Path("relative/out"), "out=out")
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


@pytest.mark.parametrize("inside", ["file", "file/deeper"])
def test_what_lies_in_a_file_is_refused(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StorageError, match=f"out=a.html: no file can be written in {tmp_path}/{inside}: "):
        check_writable(tmp_path / inside, "out=a.html")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(StorageError, match=r"out=x: no file can be written in /proc/no/where: .*; name another"):
        check_writable(Path("/proc/no/where"), "out=x")
