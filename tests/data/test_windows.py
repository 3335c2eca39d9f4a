"""Windows of text: each is the slice it claims to be, and scoring sees every token but the first exactly once."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genai_cli.data.base import DataError
from genai_cli.data.windows import Corpus, TokenWindows, read_text


@given(st.integers(1, 8), st.integers(0, 40))
def test_training_windows_are_all_slices(length, extra):
    tokens = torch.randperm(length + 1 + extra).to(torch.int32)
    windows = TokenWindows(tokens, length=length, stride=1)
    assert len(windows) == len(tokens) - length
    batch = windows.fetch(torch.arange(len(windows)))
    assert torch.equal(batch["tokens"], tokens.long().unfold(0, length + 1, 1))
    assert batch["tokens"].dtype == torch.int64 and batch["mask"].all()
    assert batch["mask"].shape == (len(windows), length)


@given(st.integers(1, 8), st.integers(2, 60))
def test_scoring_windows_cover_every_target_once_in_order(length, count):
    tokens = torch.randperm(count).to(torch.uint8)
    windows = TokenWindows(tokens, length=length, stride=length)
    batch = windows.fetch(torch.arange(len(windows)))
    inputs, targets, mask = batch["tokens"][:, :-1], batch["tokens"][:, 1:], batch["mask"]
    assert torch.equal(targets[mask], tokens[1:].long())
    assert torch.equal(inputs[mask], tokens[:-1].long())
    assert mask[:, 0].all()  # no window is empty


def make_corpus(content: bytes = bytes(range(97, 117)) * 10, **options) -> Corpus:
    options = {"source": "novel.txt", "tokenizer": "char", "length": 4, "validation": 0.05, "test": 0.1, **options}
    return Corpus(content, **options)


def test_splits_are_contiguous_and_make_up_the_text():
    corpus = make_corpus()
    parts = [corpus.split(name).tokens for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [170, 10, 20]
    assert torch.equal(torch.cat(parts), corpus.tokens)


def test_tokens_are_stored_in_the_smallest_type():
    assert make_corpus().tokens.dtype == torch.uint8
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    assert make_corpus(many.encode()).tokens.dtype == torch.int32
    assert make_corpus(many.encode(), tokenizer="byte").tokens.dtype == torch.uint8


def test_content_hash_is_of_the_text_however_it_is_cut():
    corpus, longer = make_corpus(), make_corpus(length=9)
    assert corpus.split("test").content_hash() == longer.split("test").content_hash()
    assert corpus.split("test").content_hash() != corpus.split("train").content_hash()


def test_split_too_short_for_a_window_is_refused():
    with pytest.raises(DataError, match=r"train split of novel\.txt has 170 of its 200 tokens, fewer than 301"):
        make_corpus(length=300).split("train")


def test_bad_utf8_is_named_with_file_and_byte():
    with pytest.raises(DataError, match=r"novel\.txt is not UTF-8: byte 3 is 0xff .*dataset\.tokenizer=byte"):
        make_corpus(b"abc\xff" + b"d" * 100)
    assert make_corpus(b"abc\xff" + b"d" * 100, tokenizer="byte").tokens[3] == 255


def test_empty_text_is_refused():
    with pytest.raises(DataError, match=r"novel\.txt is empty"):
        make_corpus(b"")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "none.txt"])
def test_unreadable_file_is_named(tmp_path, name):
    if name != "none.txt":
        (tmp_path / name).write_bytes(b"not compressed")
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        read_text(tmp_path / name)


def test_windows_can_be_sent_to_worker_processes():
    windows = make_corpus().split("train")
    copy = pickle.loads(pickle.dumps(windows))
    assert torch.equal(copy.fetch(torch.tensor([5]))["tokens"], windows.fetch(torch.tensor([5]))["tokens"])
