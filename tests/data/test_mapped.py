"""Texts that stay on disk give the batches of texts that are held, and take little memory."""

import subprocess
import sys

import pytest
import torch

from genai_cli.data import mapped
from genai_cli.data.base import DataError
from genai_cli.data.text import Text
from genai_cli.engine import batches
from genai_cli.engine.batches import Order
from genai_cli.nn.random import permuted

FEW = "To be, or not to be\r\n— 床前明月光 👍\n" * 60
MANY = "".join(map(chr, range(0x4E00, 0x4E00 + 600))) * 3  # a vocabulary above 256

RESIDENT = """
import resource, sys, torch
from genai_cli.data.text import Text
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
split = Text(path=sys.argv[1], tokenizer=sys.argv[2], map_above=1).load("train")
split.fetch(torch.arange(0, len(split), len(split) // 50))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "_PART", 101)  # parts end within lines and between the halves of \r\n


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
@pytest.mark.parametrize("text", [FEW, MANY], ids=["few characters", "many characters"])
def test_batches_are_those_of_the_text_in_memory(tmp_path, tokenizer, text) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    held, on_disk = (Text(path=str(path), tokenizer=tokenizer, length=16, map_above=most) for most in (10**9, 1))
    assert on_disk.corpus.is_mapped and not held.corpus.is_mapped
    assert held.spec == on_disk.spec
    for name in ("train", "validation", "test"):
        one, other = held.load(name), on_disk.load(name)
        assert len(one) == len(other) and one.content_hash() == other.content_hash()
        places = torch.arange(len(one))
        for key, rows in one.fetch(places).items():
            assert torch.equal(rows, other.fetch(places)[key])


def test_tokens_are_written_once_and_anew_when_the_text_changes(tmp_path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(FEW, encoding="utf-8")
    for _ in range(2):
        Text(path=str(path), map_above=1)
    folder = tmp_path / "cache" / "genai" / "tokens"
    assert len(list(folder.iterdir())) == 1
    path.write_text(FEW.replace("be", "do"), encoding="utf-8")
    corpus = Text(path=str(path), map_above=1).corpus
    assert len(list(folder.iterdir())) == 2
    assert corpus.tokenizer.decode(corpus.tokens[:5]) == "To do"


def test_what_is_not_utf8_is_refused(tmp_path) -> None:
    (tmp_path / "text.txt").write_bytes(b"fine\n" * 50 + b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        Text(path=str(tmp_path / "text.txt"), map_above=1)


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_a_large_text_takes_little_memory(tmp_path, tokenizer) -> None:
    """40 MB, of which the pages of fifty windows and a part that is being read are held."""
    path = tmp_path / "text.txt"
    path.write_bytes(b"It was the best of times, it was the worst of times.\n" * 750_000)
    words = [sys.executable, "-c", RESIDENT, str(path), tokenizer]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < (120 if tokenizer == "char" else 20)  # MB; parts of 4 M characters


@pytest.mark.parametrize("length", [1, 2, 5, 16, 17, 1000])
def test_a_computed_order_is_a_permutation(length) -> None:
    found = permuted(torch.arange(length), length, 7)
    assert sorted(found.tolist()) == list(range(length))
    assert length < 16 or not torch.equal(found, permuted(torch.arange(length), length, 8))
    assert torch.equal(permuted(torch.arange(length)[length // 2 :], length, 7), found[length // 2 :])


def test_a_computed_order_is_spread_evenly() -> None:
    """Neighbours go anywhere: the mean distance of two of N is N / 3."""
    found = permuted(torch.arange(20_000), 10**9, 3).double() / 10**9
    assert abs(found.mean() - 0.5) < 0.01 and abs(found.diff().abs().mean() - 1 / 3) < 0.01


def test_every_example_is_seen_once_an_epoch_however_many(monkeypatch) -> None:
    monkeypatch.setattr(batches, "LARGEST_LIST", 10)
    stream = Order(37, seed=5).positions(0, 74).split(37)
    assert all(sorted(epoch.tolist()) == list(range(37)) for epoch in stream)
    assert not torch.equal(*stream)
    assert torch.equal(Order(37, seed=5).positions(30, 44), torch.cat(stream)[30:44])
