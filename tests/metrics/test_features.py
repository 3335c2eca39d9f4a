"""The classifier that images are compared by: it learns, repeats, and is kept whole or not at all."""

import pytest
import torch

from genai_cli.data.mnist import Mnist
from genai_cli.metrics import features
from genai_cli.metrics.features import (
    NUM_FEATURES,
    Extractor,
    FeatureNetwork,
    accuracy,
    cached_classifier,
    random_extractor,
    stacked,
    train_classifier,
)
from tests.metrics.blobs import NUM_CLASSES, SIDE, blobs

SHAPE = (1, SIDE, SIDE)


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return train_classifier(*blobs(600, seed=0), NUM_CLASSES, examples_seen=4000)


def test_classifier_learns_and_training_repeats(network):
    assert accuracy(network, *blobs(300, seed=1)) > 0.97
    state = torch.get_rng_state()
    again = train_classifier(*blobs(600, seed=0), NUM_CLASSES, examples_seen=4000)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator plays no part and is left alone
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 48, 40)])
def test_features_of_every_shape_are_64_numbers(shape):
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    extractor = random_extractor(shape)
    found = extractor.features(images)
    assert found.shape == (5, NUM_FEATURES) and found.isfinite().all() and found.std(0).max() > 0
    torch.testing.assert_close(extractor.features(images[:2]), found[:2])
    assert random_extractor(shape).sha256 == extractor.sha256


def test_cache_keeps_the_classifier_with_its_accuracy_and_hash(network, tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path))
    calls = []

    def train():
        calls.append(1)
        return network, 0.987

    made, found = (cached_classifier({"train": "a", "test": "b"}, SHAPE, NUM_CLASSES, train) for _ in range(2))
    assert len(calls) == 1 and found.accuracy == 0.987 and found.sha256 == made.sha256
    images, _ = blobs(20, seed=3)
    assert torch.equal(found.features(images), made.features(images))
    cached_classifier({"train": "other", "test": "b"}, SHAPE, NUM_CLASSES, train)
    assert len(calls) == 2
    assert not list(tmp_path.rglob("*.tmp"))


def test_stacked_images_are_told_channel_by_channel(network):
    images, labels = blobs(90, seed=4)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    stack = torch.cat([images, images[order]], 1)  # (N, 2, H, W)
    extractor = stacked(Extractor("classifier", network, 0.9), 2)
    one = Extractor("classifier", network, 0.9).classify(images)
    assert torch.equal(extractor.classify(stack), one * NUM_CLASSES + one[order])
    assert extractor.features(stack).shape == (90, 2 * NUM_FEATURES) and extractor.accuracy == 0.9
    assert (one == labels).double().mean() > 0.9


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_cache_is_made_anew(network, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path))

    def get():
        return cached_classifier({"train": "a"}, SHAPE, NUM_CLASSES, lambda: (network, 0.5))

    whole = get()
    (path,) = tmp_path.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-100]
    elif damage == "flipped":
        content[-50] ^= 0x40
    else:
        content = bytearray()
    path.write_bytes(content)
    assert get().sha256 == whole.sha256
    assert path.read_bytes() != bytes(content)


def test_a_cache_that_cannot_be_written_is_no_error(network, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path / "file"))
    assert cached_classifier({}, SHAPE, NUM_CLASSES, lambda: (network, 0.5)).accuracy == 0.5


def test_cache_lies_where_the_user_says_or_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path))
    assert features.cache_folder() == tmp_path
    monkeypatch.delenv("GENAI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features.cache_folder() == tmp_path / "genai"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_classifier_of_mnist_is_right_on_99_percent():
    train, test = (Mnist().load(name) for name in ("train", "test"))
    (images, labels), held_out = (
        (rows["image"], rows["label"]) for rows in (split.fetch(torch.arange(len(split))) for split in (train, test))
    )
    assert accuracy(train_classifier(images, labels, 10), *held_out) >= 0.99
