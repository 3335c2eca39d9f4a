"""MNIST: the package's copy is the original, byte for byte; its splits; a folder that is used in its place."""

import hashlib
import shutil

import pytest
import torch

from genai_cli.data import mnist
from genai_cli.data.base import DataError
from genai_cli.data.mnist import CHECKSUMS, PART_COUNT, Mnist


@pytest.fixture(scope="module")
def dataset() -> Mnist:
    dataset = Mnist()
    dataset.load("train")  # reads the four parts once for all tests
    return dataset


def test_package_holds_the_original_files(dataset):
    digest = hashlib.sha256(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (60_000, 28, 28)))
    for part in range(4):
        digest.update(dataset._parts[part].numpy().tobytes())
    assert digest.hexdigest() == CHECKSUMS["train-images-idx3-ubyte"]
    for name, original in [
        ("train-labels.xz", "train-labels-idx1-ubyte"),
        ("t10k-images.xz", "t10k-images-idx3-ubyte"),
        ("t10k-labels.xz", "t10k-labels-idx1-ubyte"),
    ]:
        assert hashlib.sha256(mnist.read_embedded(name)).hexdigest() == CHECKSUMS[original]


def test_first_part_begins_with_the_header_of_the_idx_file():
    content = mnist.read_embedded("train-images-0.xz")
    assert content[:16] == bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (60_000, 28, 28))
    assert len(content) == 16 + PART_COUNT * 28 * 28


def test_splits_are_55000_5000_10000_and_share_no_image(dataset):
    images = {name: dataset.load(name).tensors["image"] for name in ("train", "validation", "test")}
    assert {name: len(rows) for name, rows in images.items()} == {"train": 55_000, "validation": 5_000, "test": 10_000}
    digests = {name: {hash(row.numpy().tobytes()) for row in rows} for name, rows in images.items()}
    assert not digests["train"] & digests["validation"]
    assert not digests["train"] & digests["test"]
    assert not digests["validation"] & digests["test"]


def test_validation_is_the_end_of_the_training_file(dataset):
    smaller = Mnist(validation=20_000)
    validation = smaller.load("validation").tensors
    assert list(smaller._parts) == [2, 3]  # nothing but what is needed was read
    assert torch.equal(validation["image"][-5000:], dataset.load("validation").tensors["image"])
    assert torch.equal(validation["label"][:15_000], dataset.load("train").tensors["label"][40_000:])


def test_batches_are_scaled_to_the_range_of_the_spec(dataset):
    split = dataset.load("validation")
    batch = split.fetch(torch.tensor([3, 0]))
    assert batch["image"].shape == (2, *dataset.spec.shape)
    assert (batch["image"].min(), batch["image"].max()) == dataset.spec.value_range
    assert torch.equal(((batch["image"] + 1) * 127.5).round().to(torch.uint8), split.tensors["image"][[3, 0]])
    assert batch["label"].dtype == torch.int64 and dataset.spec.classes[batch["label"][0]] in "0123456789"


@pytest.fixture
def root(tmp_path):
    """A folder with the two test files, as torchvision extracts them."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(mnist.read_embedded("t10k-images.xz"))
    (raw / "t10k-labels-idx1-ubyte").write_bytes(mnist.read_embedded("t10k-labels.xz"))
    return tmp_path


def test_folder_in_torchvision_layout_is_read(root, dataset, monkeypatch):
    expected = dataset.load("test").content_hash()
    monkeypatch.setattr(mnist, "EMBEDDED", root / "none")
    assert Mnist(root=str(root)).load("test").content_hash() == expected
    monkeypatch.setenv("GENAI_DATA", str(root))
    assert Mnist().load("test").content_hash() == expected


def test_altered_file_of_a_folder_is_refused_by_name(root):
    labels = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match=f"{labels} is not the original file"):
        Mnist(root=str(root)).load("test")


def test_missing_file_of_a_folder_is_named(root):
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte and no train-images-idx3-ubyte\.gz"):
        Mnist(root=str(root)).load("train")


def test_root_without_mnist_is_refused_but_the_variable_is_only_a_hint(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=f"no MNIST/raw in dataset.root={tmp_path}"):
        Mnist(root=str(tmp_path)).load("test")
    monkeypatch.setenv("GENAI_DATA", str(tmp_path))
    assert len(Mnist().load("test")) == 10_000


def test_altered_package_is_noticed(tmp_path, monkeypatch):
    shutil.copy(mnist.EMBEDDED / "t10k-images.xz", tmp_path)
    content = bytearray((tmp_path / "t10k-images.xz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "t10k-images.xz").write_bytes(content)
    monkeypatch.setattr(mnist, "EMBEDDED", tmp_path)
    with pytest.raises(DataError, match=r"t10k-images\.xz was altered"):
        mnist.embedded_test()
    with pytest.raises(DataError, match=r"t10k-labels\.xz is missing"):
        mnist.read_embedded("t10k-labels.xz")
