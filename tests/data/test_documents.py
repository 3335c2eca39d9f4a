"""Texts made of documents: JSON lines, formal languages, text8; Chinese text and text that is none."""

import json

import pytest
import torch

from genai_cli.data import text8
from genai_cli.data.base import DataError
from genai_cli.data.formal import Formal
from genai_cli.data.jsonl import Jsonl
from genai_cli.data.text import Text
from genai_cli.data.text8 import Text8
from genai_cli.metrics.formal import formal_figures, is_right

SPLITS = ("train", "validation", "test")
POEM = "床前明月光、疑是地上霜。\n举头望明月、低头思故乡。\n"


def text_of(dataset, split: str) -> str:
    return dataset.corpus.tokenizer.decode(dataset.load(split).tokens)


def write_lines(path, records) -> str:
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_every_line_of_a_jsonl_file_is_in_one_split(tmp_path, tokenizer) -> None:
    records = [{"prompt": f"{i} 加 1?", "response": f"{i + 1} 👍"} for i in range(100)]
    path = write_lines(tmp_path / "sums.jsonl", records)
    data = Jsonl(path=path, length=8, tokenizer=tokenizer, vocabulary=300, validation=0.2, test=0.2)
    found = [document for split in SPLITS for document in text_of(data, split).split("\n\n")[:-1]]
    assert sorted(found) == sorted(f"{i} 加 1?\n{i + 1} 👍" for i in range(100))


def test_a_template_says_what_becomes_of_a_line(tmp_path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"a": i, "b": [i]} for i in range(60)])
    data = Jsonl(path=path, template="{a}={b};", length=4, validation=0.2, test=0.2)
    assert set(text_of(data, "train").split(";")[:-1]) <= {f"{i}=[{i}]" for i in range(60)}
    with pytest.raises(DataError, match=r"line 1 .* has no key 'c', .*; it has \['a', 'b'\]"):
        Jsonl(path=path, template="{c}")
    with pytest.raises(DataError, match="has no key"):
        Jsonl(path=path, template="{a.__class__}")


@pytest.mark.parametrize(("line", "words"), [("{", "line 2 .* is no JSON"), ("[1]", "line 2 .* is no JSON object")])
def test_lines_that_are_no_objects_are_named(tmp_path, line, words) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a"}\n' + line)
    with pytest.raises(DataError, match=words):
        Jsonl(path=str(path))
    with pytest.raises(DataError, match="is not there"):
        Jsonl(path=str(tmp_path / "none"))


# -- formal languages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["brackets", "arithmetic"])
def test_every_line_of_a_formal_language_is_right_and_in_one_split(language) -> None:
    data = Formal(language=language, size=2000)
    texts = [text_of(data, split) for split in SPLITS]
    assert formal_figures(texts)["right"] == 1
    lines = [line for text in texts for line in text.split("\n")[:-1]]
    assert len(lines) == len(set(lines)) > 1000


@pytest.mark.parametrize("line", ["()", "[{}]()", "0+0=0", "17+25=42"])
def test_right_lines(line) -> None:
    assert is_right(line)


@pytest.mark.parametrize("line", ["", "(", ")(", "(]", "17+25=43", "07+1=8", "1+1=", "a", "(a)"])
def test_wrong_lines(line) -> None:
    assert not is_right(line)


def test_only_whole_lines_count() -> None:
    assert formal_figures(["()\n(]\n((", "1+1=2\n"]) == {"lines": 3, "right": 2 / 3}


# -- text8, Chinese, and bytes that are no text -------------------------------------------------------------------


def test_text8_is_split_as_in_the_literature(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(text8, "SIZE", 1000)
    monkeypatch.setattr(text8, "BOUNDS", {"train": (0, 900), "validation": (900, 950), "test": (950, 1000)})
    content = ("the quick brown fox jumps over the lazy dog " * 30)[:1000]
    (tmp_path / "text8").mkdir()
    (tmp_path / "text8" / "text8").write_text(content)
    data = Text8(root=str(tmp_path), length=16)
    assert "".join(data.tokenizer.decode(data.load(split).tokens) for split in SPLITS) == content
    assert len(data.load("test")) == 4
    (tmp_path / "text8" / "text8").write_text(content.upper())
    with pytest.raises(DataError, match="is not text8"):
        Text8(root=str(tmp_path)).load("test")
    with pytest.raises(DataError, match="mattmahoney"):
        Text8(root=str(tmp_path / "none")).load("test")


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_a_folder_of_chinese_files(tmp_path, tokenizer) -> None:
    for name in ("甲.txt", "乙.txt"):
        (tmp_path / name).write_text(POEM * 10, encoding="utf-8")
    data = Text(path=str(tmp_path), length=8, tokenizer=tokenizer, vocabulary=300)
    whole = torch.cat([data.load(split).tokens for split in SPLITS])
    assert data.corpus.tokenizer.decode(whole) == POEM * 10 + "\n" + POEM * 10


def test_text_that_is_no_utf8_is_refused_with_its_position(tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes("床".encode() + b"\xff" + b"abc" * 100)
    for tokenizer in ("char", "bpe"):
        with pytest.raises(DataError, match="is not UTF-8: byte 3 is 0xff"):
            Text(path=str(tmp_path), tokenizer=tokenizer)
