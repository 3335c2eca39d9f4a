"""One server of processes for a session, and folders in memory, where a flush to the disk costs nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.harness import Genai

_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder for the whole session."""
    folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder(memory: Path) -> Path:
    """A folder for one test."""
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture(scope="session")
def genai(memory: Path) -> Iterator[Genai]:
    server = Genai(Path(tempfile.mkdtemp(dir=memory)))
    yield server
    server.close()
