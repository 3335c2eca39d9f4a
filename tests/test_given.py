"""`genai sample given=...`: images and signals as a model takes them, which part stays, and what is written of it."""

import csv
import json

import pytest
import torch

from genai_cli.cli import run
from genai_cli.commands.given import read_given, read_images
from genai_cli.data.base import DataError, Spec
from genai_cli.data.csv import Csv
from genai_cli.data.recordings import read_wav
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.media.files import write_samples
from genai_cli.media.sounds import wav_bytes
from genai_cli.nn import mu_law
from genai_cli.nn.random import SampleRandom
from genai_cli.samplers.keep import given_rows, kept_pixels

SPEC = Spec("image", (1, 6, 6), value_range=(-1.0, 1.0))


def test_a_folder_of_samples_reads_back_as_what_was_sampled(tmp_path):
    images = torch.randint(0, 256, (3, 1, 6, 6)).float() / 127.5 - 1
    write_samples(images, SPEC, tmp_path)
    torch.testing.assert_close(read_images(tmp_path, SPEC), images, atol=1e-6, rtol=0)
    assert read_images(tmp_path, Spec("image", (3, 12, 12), value_range=(0.0, 1.0))).shape == (3, 3, 12, 12)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        read_given(tmp_path / "none", SPEC)
    with pytest.raises(ConfigError, match="holds no image"):
        read_given(tmp_path, SPEC)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"broken\.png cannot be read"):
        read_given(tmp_path, SPEC)
    with pytest.raises(ConfigError, match="nothing to complete in points"):
        read_given(tmp_path, Spec("points", (2,)))


def test_a_sample_begins_with_the_given_image_of_its_number():
    given = torch.arange(3.0).view(3, 1, 1, 1)
    assert given_rows(given, SampleRandom(0, range(2, 6))).flatten().tolist() == [2, 0, 1, 2]


def test_kept_halves_are_halves():
    for keep, other in (("top_half", "bottom_half"), ("left_half", "right_half")):
        assert torch.equal(kept_pixels(keep, 5, 6), ~kept_pixels(other, 5, 6))
    assert kept_pixels("top_half", 4, 4)[:2].all() and kept_pixels("left_half", 4, 4)[:, :2].all()
    assert (~kept_pixels("border", 8, 8)).sum() == 16
    with pytest.raises(ValueError, match="keep=inside is none of top_half"):
        kept_pixels("inside", 4, 4)


# -- series and sound --------------------------------------------------------------------------------------------------

SERIES = Spec("series", (6, 2), columns=("up", "down"), offset=(10.0, 0.0), scale=(2.0, 4.0))
AUDIO = Spec("audio", (40,), (-1.0, 1.0), sample_rate=1000)


def table(path, lines: list[str], header: str = "hour,up,down"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_given_series_is_scaled_as_the_data_of_the_run_were(tmp_path):
    file = table(tmp_path / "a.csv", ["1h,12,4", "2h,14,", "3h,8,-4"])
    given, notes = read_given(file, SERIES)
    torch.testing.assert_close(given, torch.tensor([[[1.0, 1.0], [2.0, torch.nan], [-1.0, -1.0]]]), equal_nan=True)
    assert notes == []
    swapped = table(tmp_path / "b.csv", ["4,12", ",14", "-4,8"], header="down,up")
    assert read_given(swapped, SERIES)[0].nan_to_num().equal(given.nan_to_num())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("up,down\n1,2\n,\n\n3,4\n,\n", [[1, 2], None, [3, 4], None]),  # a line without cells is none
        ('one\n1\n\n""\n3\n\n', [[1], None, None, [3]]),  # of one column it is a gap, but at the end
    ],
)
def test_a_line_of_empty_cells_is_a_step_that_is_not_known(tmp_path, text, expected):
    (tmp_path / "a.csv").write_text(text)
    names = tuple(text.split("\n")[0].split(","))
    given, _ = read_given(tmp_path / "a.csv", Spec("series", (6, len(names)), columns=names))
    nan = [float("nan")] * len(names)
    torch.testing.assert_close(
        given[0], torch.tensor([nan if row is None else row for row in expected], dtype=torch.float32), equal_nan=True
    )


def test_samples_read_back_as_the_series_that_they_are(tmp_path):
    series = torch.randn(3, 6, 2)
    write_samples(series, SERIES, tmp_path)
    for path in (tmp_path / "samples.csv", tmp_path):
        torch.testing.assert_close(read_given(path, SERIES)[0], series, atol=1e-5, rtol=1e-5)


def test_of_a_long_file_the_end_is_read_and_this_is_said(tmp_path):
    file = table(tmp_path / "a.csv", [f",{10 + 2 * t},0" for t in range(9)])
    given, (note,) = read_given(file, SERIES)
    assert given[0, :, 0].tolist() == [3, 4, 5, 6, 7, 8] and "has 9 steps, of which the last 6 are read" in note
    assert read_given(file, SERIES, keep=2)[0][0, :, 0].tolist() == [7, 8]
    assert read_given(file, SERIES, keep=8)[0].shape == (1, 8, 2)
    table(tmp_path / "b.csv", [",0,0"] * 4)
    assert read_given(tmp_path, SERIES, keep=4)[0].shape == (2, 4, 2)
    with pytest.raises(ConfigError, match=r"b\.csv there are 4 steps and of .*a\.csv 6: give keep=4"):
        read_given(tmp_path, SERIES)
    with pytest.raises(ConfigError, match=r"keep=5 is more than the 4 steps of given=.*b\.csv"):
        read_given(tmp_path, SERIES, keep=5)


@pytest.mark.parametrize(
    ("header", "line", "words"),
    [
        ("hour,up", "1h,2", r"has no column down: it must have .* up,down, and it has hour,up"),
        ("up,up,down", "1,2,3", "has more than one column up"),
        ("1,2", "3,4", "has no column up"),
        ("up,down", "1,x", "line 2, column down is 'x', which is no number"),
        ("up,down", "1,nan", "line 2, column down is 'nan', where every cell must be a finite number.*cell empty"),
        ("up,down", "1", "line 2 has 1 cells where the first line has 2"),
        ("up,down", "", "no line of numbers"),
    ],
)
def test_what_is_wrong_with_a_given_series_is_said(tmp_path, header, line, words):
    with pytest.raises(DataError, match=words):
        read_given(table(tmp_path / "a.csv", [line], header=header), SERIES)


def test_what_the_run_cannot_have_seen_is_refused(tmp_path):
    bounded = Spec("series", (6, 2), (0.0, 1.0), columns=("up", "down"))
    with pytest.raises(DataError, match=r"holds 1\.5, but what the run learned lies between 0 and 1"):
        read_given(table(tmp_path / "a.csv", [",0.5,1.5"]), bounded)
    with pytest.raises(DataError, match="there is no such file"):
        read_given(tmp_path / "none.csv", SERIES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no CSV file"):
        read_given(tmp_path / "empty", SERIES)
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"a\.wav cannot be read: not a WAV file"):
        read_given(tmp_path / "a.wav", AUDIO)
    with pytest.raises(ConfigError, match=r"nothing to complete in text.*prompt="):
        read_given(tmp_path, Spec("text", (5,), tokenizer={"kind": "byte"}, vocabulary_size=256))


def test_a_given_sound_is_brought_to_the_rate_of_the_run(tmp_path):
    sound = 0.5 * (2 * torch.pi * 50 * torch.arange(80) / 2000).sin()
    (tmp_path / "a.wav").write_bytes(wav_bytes(sound, sample_rate=2000))
    given, (note,) = read_given(tmp_path / "a.wav", AUDIO)
    assert given.shape == (1, 40) and "2,000 samples a second: brought to the 1,000 of the run" in note
    torch.testing.assert_close(given[0, 8:-8], sound[::2][8:-8], atol=0.02, rtol=0)


TINY = [
    "train.steps=2", "train.batch_size=4", "train.evaluate_every=null", "train.sample_every=null", "logger=none",
    "device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A table of two columns, and runs of two steps that learn it in windows of 8."""
    folder = tmp_path_factory.mktemp("series")
    lines = [f"{t}h,{t % 7}.25,{(t * t) % 11}.125" for t in range(120)]
    table(folder / "all.csv", lines)
    data = ["dataset=csv", f"dataset.path={folder}/all.csv", "dataset.columns=[up,down]", "dataset.length=8"]
    small = {"wavenet": ["model.width=4", "model.depth=2"], "flow_matching": ["model.width=8"], "vae": []}
    for model, options in small.items():
        assert run(["train", f"model={model}", *data, *options, *TINY, f"run.dir={folder}/{model}"]) == ExitCode.DONE
    table(folder / "recent.csv", lines[-5:])
    table(folder / "gaps.csv", ["0h,1.25,3.125", "1h,,4.5", "2h,2.25,", "3h,1.25,0.125"])
    return folder


def written(folder) -> list[dict[str, str]]:
    with open(folder / "samples.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("model", "steps"), [("wavenet", 5 + 4), ("flow_matching", 8)])
def test_a_series_goes_on_in_the_units_of_its_file(numbers, tmp_path, model, steps):
    words = ["length=4"] if model == "wavenet" else ["steps=2"]
    given = f"given={numbers}/recent.csv"
    assert run(["sample", f"run={numbers}/{model}", given, "num_samples=3", *words, f"out={tmp_path}"]) == ExitCode.DONE
    rows = written(tmp_path)
    assert len(rows) == 3 * steps and [row["kept"] for row in rows[:steps]] == ["1"] * 5 + ["0"] * (steps - 5)
    with open(numbers / "recent.csv", newline="") as file:
        recent = list(csv.DictReader(file))
    for sample in range(3):
        for row, expected in zip(rows[sample * steps :], recent, strict=False):
            assert (row["up"], row["down"]) == (expected["up"], expected["down"])
    assert (tmp_path / "sheet.png").is_file()
    assert json.loads((tmp_path / "sample.json").read_text())["options"]["given"].endswith("recent.csv")


def test_a_flow_fills_the_gaps_of_a_series_and_wavenet_says_who_does(numbers, tmp_path, capsys):
    words = [f"given={numbers}/gaps.csv", "num_samples=2", f"out={tmp_path}"]
    assert run(["sample", f"run={numbers}/flow_matching", *words, "steps=2"]) == ExitCode.DONE
    rows = written(tmp_path)
    assert [row["kept"] for row in rows[:8]] == list("10010000")
    assert all(row["up"] == "1.25" for row in (rows[0], rows[3])) and rows[1]["down"] == rows[9]["down"] == "4.5"
    assert rows[1]["up"] != rows[9]["up"]
    assert run(["sample", f"run={numbers}/wavenet", *words]) == ExitCode.CONFIGURATION
    assert "has gaps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "words", "code", "message"),
    [
        ("wavenet", ["keep=first_half"], ExitCode.CONFIGURATION, "say which, given=FOLDER or FILE"),
        ("wavenet", ["given=recent.csv", "keep=last_half"], ExitCode.CONFIGURATION, "keep=last_half must be"),
        ("wavenet", ["given=recent.csv", "keep=9"], ExitCode.CONFIGURATION, "more than the 5 steps"),
        ("wavenet", ["given=none.csv"], ExitCode.DATA, "there is no such file"),
        ("flow_matching", ["given=all.csv"], ExitCode.CONFIGURATION, "fills the window of 8 steps"),
        ("flow_matching", ["given=recent.csv", "length=4"], ExitCode.CONFIGURATION, "length is no key"),
        ("flow_matching", ["given=recent.csv", "evaluations=5"], ExitCode.CONFIGURATION, "give steps"),
        ("vae", ["given=recent.csv"], ExitCode.CONFIGURATION, "it is one of model="),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused_in_a_sentence(numbers, tmp_path, capsys, model, words, code, message):
    words = [word.replace("given=", f"given={numbers}/") for word in words]
    capsys.readouterr()
    assert run(["sample", f"run={numbers}/{model}", "num_samples=2", f"out={tmp_path}", *words]) == code
    told = capsys.readouterr().err.strip()
    assert message in told and "\n" not in told and told.startswith("genai: ")
    assert not list(tmp_path.iterdir())


def test_evaluation_scores_forecasts_beside_those_that_anyone_can_make(numbers, capsys):
    """Of held-out windows, whose last values and first halves are known: the controls are computed by hand."""
    words = ["evaluate", f"run={numbers}/wavenet", "device=cpu", "num_samples=100"]
    assert run([*words, "metrics=[forecast]"]) == ExitCode.DONE
    (record,) = (json.loads(path.read_text()) for path in (numbers / "wavenet" / "evaluation").glob("*.json"))
    score, error = record["metrics"]
    assert (score["name"], error["name"]) == ("forecast_crps", "forecast_error") and score["value"] > 0
    assert score["protocol"]["n_real"] == 5 and score["protocol"]["n_fake"] == 100
    windows = Csv(path=str(numbers / "all.csv"), columns=["up", "down"], length=8).load("test")
    x = windows.fetch(torch.arange(5) * len(windows) // 5)["series"]
    for name, forecast in {"last_value": x[:, 3:4].expand(-1, 4, -1), "given_again": x[:, :4]}.items():
        expected = (forecast - x[:, 4:]).abs().mean().item()
        assert score["controls"][name] == error["controls"][name] == pytest.approx(expected)
    capsys.readouterr()
    assert run([*words, "metrics=[forecast]", "length=4"]) == ExitCode.CONFIGURATION
    assert "so not with length" in capsys.readouterr().err
    assert run(["evaluate", f"run={numbers}/vae", "device=cpu", "metrics=[forecast]"]) == ExitCode.CONFIGURATION
    assert "model=vae goes on from nothing; a wavenet or edm does" in capsys.readouterr().err


def test_a_sound_goes_on_from_a_file(tmp_path):
    data = ["dataset=tones", "dataset.sample_rate=2000", "dataset.length=60", "dataset.size=8", "dataset.held_out=4"]
    words = ["model=wavenet", *data, "model.width=4", "model.depth=2", *TINY, f"run.dir={tmp_path}/run"]
    assert run(["train", *words]) == ExitCode.DONE
    sound = 0.5 * (2 * torch.pi * 100 * torch.arange(50) / 2000).sin()
    (tmp_path / "a.wav").write_bytes(wav_bytes(sound, sample_rate=2000))
    words = [f"given={tmp_path}/a.wav", "num_samples=2", "length=30", f"out={tmp_path}/out"]
    assert run(["sample", f"run={tmp_path}/run", *words]) == ExitCode.DONE
    levels = []
    for path in (tmp_path / "a.wav", tmp_path / "out" / "00000.wav", tmp_path / "out" / "00001.wav"):
        read, rate = read_wav(path)
        assert rate == 2000 and len(read) == (50 if path.stem == "a" else 80)
        levels.append(mu_law.encode(read)[:50])
    assert torch.equal(levels[0], levels[1]) and torch.equal(levels[0], levels[2])
    words = [f"given={tmp_path}/out", "num_samples=2", "length=10", "keep=80", f"out={tmp_path}/again"]
    assert run(["sample", f"run={tmp_path}/run", *words]) == ExitCode.DONE  # from its own samples, as they are
    again, _ = read_wav(tmp_path / "again" / "00001.wav")
    assert torch.equal(again[:80], read_wav(tmp_path / "out" / "00001.wav")[0])
