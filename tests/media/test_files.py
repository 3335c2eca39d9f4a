"""Samples as files: what is written is read back, for every modality."""

import csv
import errno

import numpy
import pytest
import torch
from PIL import Image

from genai_cli.data.base import Spec
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.media.files import write_file, write_samples
from genai_cli.media.sheets import image_grid


def read(path) -> numpy.ndarray:
    with Image.open(path) as image:
        return numpy.array(image)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_read_back(tmp_path, channels):
    pixels = torch.randint(256, (3, channels, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    spec = Spec("image", (channels, 5, 7), value_range=(-1.0, 1.0))
    path = write_samples(pixels.float() / 127.5 - 1, spec, tmp_path / "new" / "samples")
    assert path.name == "sheet.png"
    assert sorted(file.name for file in path.parent.iterdir()) == ["00000.png", "00001.png", "00002.png", "sheet.png"]
    for i in range(3):
        expected = pixels[i].squeeze(0) if channels == 1 else pixels[i].permute(1, 2, 0)
        assert numpy.array_equal(read(path.parent / f"{i:05d}.png"), expected.numpy())
    assert numpy.array_equal(read(path), image_grid(pixels).permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("dimensions", "header"), [(2, ["x", "y"]), (3, ["x0", "x1", "x2"])])
def test_points_read_back_exactly(tmp_path, dimensions, header):
    points = torch.randn(50, dimensions, generator=torch.Generator().manual_seed(0))
    path = write_samples(points, Spec("points", (dimensions,)), tmp_path)
    with open(tmp_path / "samples.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == header
    assert torch.equal(torch.tensor([[float(value) for value in row] for row in rows[1:]]), points)
    assert read(path).shape == (640, 640, 3)


def test_texts_read_back_exactly(tmp_path):
    texts = ["line\r\nfeed", "月光\n🙂  .. /"]
    tokenizer = CharTokenizer.of_text("".join(texts))
    tokens = torch.stack([tokenizer.encode(text.ljust(10, " ")[:10]) for text in texts])
    spec = Spec("text", (10,), tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)
    path = write_samples(tokens, spec, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["00000.txt", "00001.txt", "samples.txt", "sheet.txt"]
    for i, text in enumerate(texts):
        assert (tmp_path / f"{i:05d}.txt").read_bytes().decode() == text.ljust(10, " ")[:10]
    assert path.read_bytes() == (tmp_path / "samples.txt").read_bytes()


def test_unknown_modality_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'smell'"):
        write_samples(torch.zeros(1), Spec("smell", (1,)), tmp_path)


def test_a_full_disk_is_told_by_the_file_and_leaves_no_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError) as caught:
        write_file(tmp_path / "a.txt", b"new")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.txt", b"old")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
