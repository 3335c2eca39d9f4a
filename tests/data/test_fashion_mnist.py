"""Fashion-MNIST: torchvision's layout is read, and torchvision fetches it where that is asked for."""

import functools
import gzip
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy
import pytest
import torch

from genai_cli.data import fashion_mnist
from genai_cli.data.base import DataError
from genai_cli.data.fashion_mnist import FashionMnist

IMAGES = numpy.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=numpy.uint8)
LABELS = numpy.array([9, 0, 1, 2, 3, 4], dtype=numpy.uint8)


def idx(values: numpy.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


FILES = {
    "train-images-idx3-ubyte": idx(IMAGES),
    "train-labels-idx1-ubyte": idx(LABELS),
    "t10k-images-idx3-ubyte": idx(IMAGES[:2]),
    "t10k-labels-idx1-ubyte": idx(LABELS[:2]),
}


def test_extracted_files_are_read(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in FILES.items():
        (raw / name).write_bytes(content)
    dataset = FashionMnist(root=str(tmp_path), validation=2)
    parts = [dataset.load(name).tensors for name in ("train", "validation")]
    assert torch.equal(torch.cat([part["image"] for part in parts]).squeeze(1), torch.from_numpy(IMAGES))
    assert [len(part["label"]) for part in parts] == [4, 2]
    assert dataset.spec.classes[parts[0]["label"][0]] == "Ankle boot"
    assert len(dataset.load("test")) == 2


def test_missing_data_say_what_to_put_where(tmp_path):
    with pytest.raises(DataError, match=rf"no FashionMNIST/raw in {tmp_path}; put .*dataset\.download=true"):
        FashionMnist(root=str(tmp_path)).load("train")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server on this machine from which torchvision fetches the four files; yields their md5 sums."""
    from torchvision.datasets import FashionMNIST

    folder = tmp_path / "mirror"
    folder.mkdir()
    sums = {}
    for name, content in FILES.items():
        compressed = gzip.compress(content, mtime=0)
        (folder / f"{name}.gz").write_bytes(compressed)
        sums[f"{name}.gz"] = hashlib.md5(compressed).hexdigest()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(FashionMNIST, "resources", list(sums.items()))
    monkeypatch.setattr(fashion_mnist, "CHECKSUMS", sums)
    yield folder
    server.shutdown()
    server.server_close()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_torchvision_downloads_what_is_missing(tmp_path, mirror):
    dataset = FashionMnist(root=str(tmp_path / "new"), download=True, validation=1)
    assert dataset.load("test").tensors["label"].tolist() == LABELS[:2].tolist()
    for path in (tmp_path / "new" / "FashionMNIST" / "raw").glob("t10k-labels*"):
        path.unlink()  # as if the first download had been interrupted
    assert len(dataset.load("test")) == 2


def test_wrong_download_is_refused(tmp_path, mirror):
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>")
    with pytest.raises(DataError, match="Fashion-MNIST could not be downloaded"):
        FashionMnist(root=str(tmp_path / "new"), download=True).load("test")
