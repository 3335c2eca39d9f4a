"""CIFAR-10: the official binary records, whole and in part, and torchvision's pickled form behind its checksums."""

import hashlib
import lzma
import pickle

import numpy
import pytest
import torch

from genai_cli.data.base import DataError
from genai_cli.data.cifar10 import CLASSES, Cifar10

GENERATOR = numpy.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (8, 3, 32, 32), dtype=numpy.uint8)
LABELS = numpy.array([3, 1, 4, 1, 5, 9, 2, 6], dtype=numpy.uint8)


def records(start: int, stop: int) -> bytes:
    rows = zip(LABELS[start:stop], PIXELS[start:stop], strict=True)
    return b"".join(bytes([label]) + pixels.tobytes() for label, pixels in rows)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(records(0, 3))
    (folder / "data_batch_2.bin.xz").write_bytes(lzma.compress(records(3, 6)))
    (folder / "test_batch.bin").write_bytes(records(6, 8))
    return folder


def test_binary_records_are_read_as_they_were_written(folder):
    dataset = Cifar10(root=str(folder.parent), validation=2)
    splits = [dataset.load(name) for name in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [4, 2, 2]
    assert torch.equal(torch.cat([split.tensors["image"] for split in splits]), torch.from_numpy(PIXELS))
    assert torch.cat([split.tensors["label"] for split in splits]).tolist() == LABELS.tolist()
    assert dataset.spec.shape == (3, 32, 32) and dataset.spec.classes[3] == CLASSES[3] == "cat"


def test_partial_data_are_noted(folder):
    dataset = Cifar10(root=str(folder.parent), validation=2)
    dataset.load("train")
    dataset.load("validation")
    dataset.load("test")
    assert dataset.notes == (
        "cifar10: 6 of the 50,000 images of the official train split are there",
        "cifar10: 2 of the 10,000 images of the official test split are there",
    )


def test_file_that_lies_there_twice_is_read_once(folder):
    (folder / "data_batch_1.bin.xz").write_bytes(lzma.compress(records(0, 3)))
    assert len(Cifar10(root=str(folder.parent), validation=2).load("train")) == 4


def test_flip_adds_mirror_images_to_the_training_split_only(folder):
    dataset = Cifar10(root=str(folder.parent), validation=2, flip=True)
    train = dataset.load("train")
    assert (len(train), len(dataset.load("validation"))) == (8, 2)
    images = train.fetch(torch.arange(8))["image"]
    assert torch.equal(images[4:], images[:4].flip(-1))


def test_broken_files_are_refused_by_name(folder):
    (folder / "data_batch_1.bin").write_bytes(records(0, 3)[:-1])
    with pytest.raises(DataError, match=r"data_batch_1\.bin is not whole"):
        Cifar10(root=str(folder.parent), validation=2).load("train")
    (folder / "test_batch.bin").write_bytes(b"\x0a" + records(6, 7)[1:])
    with pytest.raises(DataError, match=r"test_batch\.bin is not of CIFAR-10: it has the label 10"):
        Cifar10(root=str(folder.parent)).load("test")


def test_missing_data_say_what_to_put_where(tmp_path, folder):
    with pytest.raises(DataError, match=rf"no cifar-10-batches-bin or cifar-10-batches-py in {tmp_path}/none; unpack"):
        Cifar10(root=str(tmp_path / "none")).load("train")
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"has no test_batch\*\.bin\*: put the files of the test split there"):
        Cifar10(root=str(tmp_path)).load("test")


def test_pickled_form_is_read_only_if_its_checksums_agree(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    contents = {
        "data_batch_1": {"data": PIXELS[:6].reshape(6, -1), "labels": LABELS[:6].tolist()},
        "test_batch": {"data": PIXELS[6:].reshape(2, -1), "labels": LABELS[6:].tolist()},
        "batches.meta": {"label_names": list(CLASSES)},
    }
    sums = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    dataset = Cifar10(root=str(tmp_path), validation=1)
    assert torch.equal(dataset.load("train").tensors["image"], torch.from_numpy(PIXELS[:5]))
    assert dataset.load("test").tensors["label"].tolist() == LABELS[6:].tolist()

    canary = tmp_path / "canary"
    (folder / "data_batch_1").write_bytes(b"cposix\nmkdir\n(V" + str(canary).encode() + b"\ntR.")  # a pickle that acts
    with pytest.raises(DataError, match="missing, altered"):
        Cifar10(root=str(tmp_path), validation=1).load("train")
    assert not canary.exists()
