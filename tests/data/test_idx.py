"""The idx format: what is written is read, and what is cut or of another kind is refused."""

import gzip
import hashlib

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from genai_cli.data.base import DataError
from genai_cli.data.idx import parse_idx, read_images


def idx(values: numpy.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(numpy.uint8).tobytes()


def write_pair(raw, images: numpy.ndarray, labels: numpy.ndarray, *, gz: bool = False) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    for name, values in [("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)]:
        content = gzip.compress(idx(values)) if gz else idx(values)
        (raw / (f"{name}.gz" if gz else name)).write_bytes(content)


IMAGES = numpy.arange(3 * 4 * 4).reshape(3, 4, 4)
LABELS = numpy.array([7, 0, 9])


@given(arrays(numpy.uint8, array_shapes(min_dims=1, max_dims=3, max_side=5)))
def test_what_is_written_is_read(values):
    assert torch.equal(parse_idx(idx(values)), torch.from_numpy(values))


@given(st.integers(0, len(idx(IMAGES)) - 1))
def test_a_file_cut_anywhere_is_refused(length):
    with pytest.raises(ValueError):
        parse_idx(idx(IMAGES)[:length])


@pytest.mark.parametrize("gz", [False, True])
def test_pair_of_files_is_read(tmp_path, gz):
    write_pair(tmp_path, IMAGES, LABELS, gz=gz)
    images, labels = read_images(tmp_path, "test", {})
    assert torch.equal(images, torch.from_numpy(IMAGES).to(torch.uint8).unsqueeze(1))
    assert labels.tolist() == LABELS.tolist()


def test_checksum_of_the_compressed_file_is_checked(tmp_path):
    write_pair(tmp_path, IMAGES, LABELS, gz=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    read_images(tmp_path, "test", {path.name: hashlib.md5(path.read_bytes()).hexdigest()})
    with pytest.raises(DataError, match=f"{path} is not the original file"):
        read_images(tmp_path, "test", {path.name: "0" * 32})


def test_cut_gz_is_refused_by_name(tmp_path):
    write_pair(tmp_path, IMAGES, LABELS, gz=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=f"{path} is not a whole idx file"):
        read_images(tmp_path, "test", {})


def test_images_and_labels_must_match(tmp_path):
    write_pair(tmp_path, IMAGES, LABELS[:2])
    with pytest.raises(DataError, match="3 images and 2 labels of the test split do not match"):
        read_images(tmp_path, "test", {})
