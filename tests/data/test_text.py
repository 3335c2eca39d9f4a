"""Text from a file, from a folder and from the package; Tiny Shakespeare from where it lies."""

import gzip
import hashlib
import json
import lzma

import pytest
import torch

from genai_cli.data import shakespeare
from genai_cli.data.base import DataError, Spec
from genai_cli.data.shakespeare import Shakespeare
from genai_cli.data.text import SAMPLE, Text
from genai_cli.data.tokenizers import tokenizer_from_json

POEM = "床前明月光,疑是地上霜。\n举头望明月,低头思故乡。\n" * 20


def test_sample_is_the_one_its_source_file_names():
    digest = hashlib.sha256(lzma.decompress(SAMPLE.read_bytes())).hexdigest()
    assert digest in (SAMPLE.parent / "SOURCE.txt").read_text()
    spec = Text().spec
    assert (spec.modality, spec.shape, spec.vocabulary_size) == ("text", (64,), 70)


def test_batches_decode_to_the_text(tmp_path):
    (tmp_path / "poem.txt").write_text(POEM, encoding="utf-8")
    dataset = Text(path=str(tmp_path / "poem.txt"), length=10)
    spec = Spec.from_json(json.loads(json.dumps(dataset.spec.to_json())))
    batch = dataset.load("train").fetch(torch.tensor([0, 7]))
    texts = [tokenizer_from_json(spec.tokenizer).decode(row) for row in batch["tokens"]]
    assert texts == [POEM[:11], POEM[7:18]]


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_folder_is_joined_in_the_order_of_its_paths(tmp_path, suffix, compress):
    for name, text in [("b.txt", "second" * 20), ("a/z.md", "first" * 20), ("c.png", "no text")]:
        path = tmp_path / (name + suffix)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(compress(text.encode()))
    corpus = Text(path=str(tmp_path), tokenizer="byte", length=4).corpus
    assert bytes(corpus.tokens.tolist()) == b"first" * 20 + b"\n" + b"second" * 20


def test_bad_file_of_a_folder_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_bytes(b"fine\xc3")
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8: byte 4 is 0xc3"):
        Text(path=str(tmp_path))


def test_missing_and_empty_paths_are_refused(tmp_path):
    with pytest.raises(DataError, match=rf"dataset\.path={tmp_path}/none is not there"):
        Text(path=str(tmp_path / "none"))
    with pytest.raises(DataError, match=rf"dataset\.path={tmp_path} holds no text file"):
        Text(path=str(tmp_path))


@pytest.fixture
def original(monkeypatch) -> bytes:
    """A short text that passes for the original."""
    content = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 30
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(content).hexdigest())
    return content


@pytest.mark.parametrize(
    ("name", "compress"),
    [("input.txt", bytes), ("input.txt.gz", gzip.compress), ("input.txt.xz", lzma.compress)],
)
def test_shakespeare_is_found_below_the_root(tmp_path, monkeypatch, original, name, compress):
    path = tmp_path / "text" / "tinyshakespeare" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(compress(original))
    dataset = Shakespeare(root=str(tmp_path))
    assert dataset.corpus.tokenizer.decode(dataset.corpus.tokens) == original.decode()
    assert len(dataset.load("test").tokens) == len(original) - int(0.9 * len(original))  # nanoGPT's cut
    monkeypatch.setenv("GENAI_DATA", str(tmp_path))
    assert Shakespeare().spec == dataset.spec


def test_missing_shakespeare_says_what_to_put_where(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=rf"no tinyshakespeare/input\.txt in {tmp_path}; put .*dataset\.download=true"):
        Shakespeare(root=str(tmp_path))
    monkeypatch.delenv("GENAI_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=rf"in {tmp_path}/genai \(dataset\.root and GENAI_DATA are not set\)"):
        Shakespeare()


def test_altered_shakespeare_is_refused(tmp_path, original):
    path = tmp_path / "tinyshakespeare" / "input.txt"
    path.parent.mkdir()
    path.write_bytes(original + b" ")
    with pytest.raises(DataError, match=f"{path} is not the original text"):
        Shakespeare(root=str(tmp_path))
