"""`genai sample` of models that translate: held-out sources by default, the user's own, and sheets that show both."""

import json

import numpy
import pytest
from PIL import Image

from genai_cli import cli
from genai_cli.errors import ExitCode

TINY = (
    "train.steps=2", "train.batch_size=4", "train.evaluate_every=null", "train.sample_every=null",
    "train.num_samples=4", "logger=none", "device=cpu",
)  # fmt: skip
MODELS = {
    "pix2pix": ["model.width=4", "model.levels=2"],
    "cyclegan": ["model.width=3", "model.depth=1"],
}


@pytest.fixture
def pairs(tmp_path):
    """30 pairs, the source of each its negative, of another shade of grey each."""
    for side in ("source", "target"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for shade in range(30):
            level = shade * 8 if side == "target" else 255 - shade * 8
            Image.new("RGB", (16, 16), (level, level, level)).save(tmp_path / "pairs" / side / f"{shade}.png")
    return tmp_path / "pairs"


def opened(path) -> numpy.ndarray:
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"))


@pytest.mark.parametrize("model", MODELS)
def test_sheets_show_what_was_given_and_the_truth(model: str, pairs, tmp_path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    data = [
        "dataset=paired", f"dataset.path={pairs}", "dataset.image_size=16", "dataset.channels=1",
        "dataset.validation=0.3", "dataset.test=0.3",
    ]  # fmt: skip
    assert cli.run(["train", f"model={model}", *data, *MODELS[model], *TINY, f"run.dir={run}"]) == ExitCode.DONE
    sample = ["sample", f"run={run}", "num_samples=3", "device=cpu", f"out={out}"]
    assert cli.run(sample) == ExitCode.DONE
    columns = 3 if model == "pix2pix" else 4
    first, *_, truth = cells(opened(out / "sheet.png"), columns)
    assert abs(int(first[0, 0, 0]) + int(truth[0, 0, 0]) - 255) <= 1  # the truth that belongs to what was given
    written = [opened(out / f"{i:05d}.png") for i in range(3)]

    assert cli.run([*sample, f"given={pairs / 'source'}"]) == ExitCode.DONE  # without the data of the run
    shown = cells(opened(out / "sheet.png"), columns - 1)
    assert (shown[0] == opened(pairs / "source" / "0.png")[0, 0]).all()
    assert opened(out / "00000.png").shape == written[0].shape
    assert json.loads((out / "sample.json").read_text())["options"]["given"].endswith("source")
    if model == "cyclegan":
        assert cli.run([*sample, "direction=b_to_a"]) == ExitCode.DONE
        with Image.open(out / "00000.png") as image:
            assert image.mode == "RGB"  # domain A is in colour
    for path in (pairs / "source").iterdir():
        path.unlink()
    assert cli.run(sample) == ExitCode.DATA


def cells(sheet: numpy.ndarray, columns: int) -> list[numpy.ndarray]:
    """The images of the first row of a sheet of `columns` in each: the inner part of each."""
    width = (sheet.shape[1] - 2) // columns
    return [sheet[6 : width - 6, 2 + i * width + 4 : (i + 1) * width - 6] for i in range(columns)]
