"""Binary MNIST: the static files in both layouts, and pixels that are drawn anew as a function of (seed, step, row)."""

import dataclasses

import numpy
import pytest
import torch

from genai_cli import cli, registry
from genai_cli.config import OptimizerConfig, TrainConfig
from genai_cli.data.base import Batch, DataError
from genai_cli.data.binary_mnist import COUNTS, PACKED, TEXT, BinaryMnist, draw_bits
from genai_cli.data.mnist import Mnist
from genai_cli.engine.batches import Batches
from genai_cli.engine.distributed import World
from genai_cli.engine.step import OptimizerStep
from genai_cli.metrics.record import read_records
from genai_cli.models.base import GenerativeModel
from genai_cli.registry import DATASET
from genai_cli.runs import name_of_data
from genai_cli.schema import ConfigError, check_train, read_run_config

SMALL = {"model": {"name": "vae"}, "train": {"steps": 5}}


@pytest.fixture(scope="module")
def dynamic():
    return BinaryMnist(binarisation="dynamic").load("train")


def pixels(count: int) -> numpy.ndarray:
    return numpy.random.default_rng(0).integers(0, 2, (count, 784), dtype=numpy.uint8)


def test_packed_rows_are_read(tmp_path):
    bits = pixels(COUNTS["test"])
    folder = tmp_path / "binary_mnist_static"
    folder.mkdir()
    numpy.savez(folder / PACKED, test=numpy.packbits(bits, axis=1), train=numpy.zeros((3, 98), numpy.uint8))
    dataset = BinaryMnist(root=str(tmp_path))
    image = dataset.load("test").fetch(torch.tensor([5, 9]))["image"]
    assert image.shape == (2, *dataset.spec.shape) and dataset.spec.levels == 2 and dataset.spec.classes == ()
    assert torch.equal(image, torch.from_numpy(bits[[5, 9]]).view(2, 1, 28, 28) * 2.0 - 1)
    with pytest.raises(DataError, match=r"has 3 rows of 784 pixels for train, where 50,000 rows of 784 belong"):
        dataset.load("train")
    with pytest.raises(DataError, match="is not the file of packed rows"):
        dataset.load("validation")


def test_text_files_are_read(tmp_path):
    bits = pixels(COUNTS["test"])
    path = tmp_path / TEXT["test"]
    path.write_text("\n".join(" ".join(map(str, row)) + " " for row in bits.tolist()) + "\n")
    assert torch.equal(BinaryMnist(root=str(tmp_path)).load("test").tensors["image"].flatten(1), torch.from_numpy(bits))
    path.write_text("0 1 2\n")
    with pytest.raises(DataError, match="no text of lines of 784 zeros and ones"):
        BinaryMnist(root=str(tmp_path)).load("test")


def test_missing_files_are_named_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"put binarized_mnist_train\.amat, .*dataset\.binarisation=dynamic") as missing:
        BinaryMnist(root=str(tmp_path)).load("test")
    assert missing.value.exit_code == 3


def test_a_seed_for_the_static_digits_is_refused():
    assert registry.define(DATASET, "binary_mnist").modalities == ("image",)
    with pytest.raises(ConfigError, match="seed belongs to dynamic"):
        check_train({**SMALL, "dataset": {"name": "binary_mnist", "seed": 1}})
    check_train({**SMALL, "dataset": {"name": "binary_mnist", "seed": 1, "binarisation": "dynamic"}})


def test_white_is_as_likely_as_the_grey_value():
    grey = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3).expand(100_000, 3)
    bits = draw_bits(grey, torch.rand(grey.shape, generator=torch.Generator().manual_seed(0))).double()
    assert bits[:, 0].max() == 0 and bits[:, 2].min() == 1
    assert bits[:, 1].mean().item() == pytest.approx(0.2, abs=0.005)


def test_held_out_digits_are_drawn_once_and_hashed():
    first = BinaryMnist(binarisation="dynamic").load("test")
    again, other = (BinaryMnist(binarisation="dynamic", seed=seed).load("test") for seed in (0, 1))
    assert first.content_hash() == again.content_hash() != other.content_hash()
    assert set(first.tensors) == {"image", "label"} and len(first) == COUNTS["test"]
    assert torch.equal(first.tensors["label"], Mnist().load("test").tensors["label"])
    assert first.fetch(torch.arange(50))["image"].unique().tolist() == [-1, 1]


class Watcher(GenerativeModel):
    """Keeps the images that it is given, by parameter group."""

    modalities = ("image",)

    def __init__(self, spec):
        super().__init__(spec)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[Batch] = []

    def train_step(self, step):
        for _ in range(2):
            step.minimize("model", self.loss)

    def loss(self, batch):
        self.seen.append(batch)
        return self.weight * batch["image"].mean(), {}

    def sample(self, random):
        raise NotImplementedError


def seen(split, number: int, *, accumulate: int = 1, rank: int = 0, world_size: int = 1) -> list[Batch]:
    """The batches of two updates of one step, as a rank is given them."""
    model = Watcher(BinaryMnist(binarisation="dynamic").spec)
    batches = Batches(split, seed=3, batch_size=8, accumulate=accumulate, rank=rank, world_size=world_size)
    train = TrainConfig(batch_size=8, accumulate=accumulate)
    device = torch.device("cpu")
    OptimizerStep(
        model, batches, train, OptimizerConfig(), seed=3, total_steps=9, world=World(), device=device
    ).run(number)  # fmt: skip
    return model.seen


def test_training_pixels_are_a_function_of_seed_step_and_row(dynamic):
    first, second = seen(dynamic, 4)
    assert set(first) == {"image", "label"} and first["image"].unique().tolist() == [-1, 1]
    assert torch.equal(first["image"], second["image"])  # both updates of a step see the same pixels
    assert torch.equal(first["image"], seen(dynamic, 4)[0]["image"])
    halves = seen(dynamic, 4, accumulate=2)[:2]
    assert torch.equal(first["image"], torch.cat([half["image"] for half in halves]))
    ranks = [seen(dynamic, 4, rank=rank, world_size=2)[0] for rank in range(2)]
    assert torch.equal(first["image"], torch.cat([rank["image"] for rank in ranks]))
    assert torch.equal(first["label"], torch.cat([rank["label"] for rank in ranks]))


def test_the_same_digit_is_drawn_anew_in_every_step(dynamic):
    steps_an_epoch = len(dynamic) // 8
    batches = Batches(dynamic, seed=3, batch_size=8)
    epochs = [seen(dynamic, 4 + epoch * steps_an_epoch)[0] for epoch in range(2)]
    assert not torch.equal(epochs[0]["image"], epochs[1]["image"])
    grey = batches.fetch(4, 0, 0)["grey"]
    for value, sign in ((0, -1), (255, 1)):  # black and white pixels stay so
        assert (epochs[0]["image"][grey == value] == sign).all()


def test_the_binarisation_stands_beside_the_name_wherever_figures_do(tmp_path, capsys):
    """Static and dynamic figures do not compare, so no heading calls them the same."""
    words = ["model=vae", "dataset=binary_mnist", "dataset.binarisation=dynamic"]
    small = ["model.width=8", "model.latent_dim=2", "model.depth=1", "train.steps=2", "train.evaluate_every=null"]
    run = tmp_path / "run"
    assert cli.run(["train", *words, *small, "logger=none", "device=cpu", f"run.dir={run}"]) == 0
    config = read_run_config(run)
    other = dataclasses.replace(config, dataset={**config.dataset, "binarisation": "static"})
    assert name_of_data(other) == "binary_mnist (static)" != name_of_data(config)
    assert name_of_data(dataclasses.replace(config, dataset={"name": "mnist"})) == "mnist"
    capsys.readouterr()
    assert cli.run(["evaluate", f"run={run}", "metrics=[figures]", "device=cpu"]) == 0
    assert "vae on binary_mnist (dynamic), " in capsys.readouterr().out
    assert read_records(run)[-1]["dataset"] == "binary_mnist (dynamic)"
    assert cli.run(["compare", f"runs=[{run}]", "metrics=[figures]", "device=cpu", f"out={tmp_path / 'out'}"]) == 0
    assert "Trained on binary_mnist (dynamic)." in (tmp_path / "out" / "compare.html").read_text()
    assert cli.run(["report", f"run={run}", "device=cpu", "examples=100"]) == 0
    assert "vae on binary_mnist (dynamic)" in (run / "report.html").read_text()
