"""`genai evaluate` from end to end: every modality, the same digits twice, two folders, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from genai_cli import cli
from genai_cli.engine import faults
from genai_cli.errors import ExitCode
from genai_cli.metrics import features
from genai_cli.metrics.record import read_records
from tests.metrics.blobs import blobs

QUIET = ("device=cpu", "logger=none", "train.sample_every=null", "train.save_every=null")


def write_blobs(folder: Path, count: int, *, seed: int, labelled: bool) -> None:
    images, labels = blobs(count, seed=seed)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / (f"class{label}" if labelled else ".")
        place.mkdir(parents=True, exist_ok=True)
        pixels = ((image[0] + 1) * 127.5).round().byte().numpy()
        Image.fromarray(pixels).save(place / f"{number}.png")


def metrics_of(record: dict) -> dict[str, dict]:
    return {metric["name"]: metric for metric in record["metrics"]}


@pytest.fixture(scope="module")
def image_run(tmp_path_factory) -> Path:
    """A GAN that has seen forty batches of labelled images."""
    folder = tmp_path_factory.mktemp("image")
    write_blobs(folder / "data", 600, seed=0, labelled=True)
    words = (f"dataset.path={folder}/data", "dataset.image_size=16", "dataset.channels=1", "dataset.validation=0.2")
    small = ("model.width=16", "train.steps=40", "train.evaluate_every=20", f"run.dir={folder}/run")
    assert cli.run(["train", "model=gan", "dataset=folder", *words, *small, *QUIET]) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def small_classifier(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(features, "EXAMPLES_SEEN", 4000)
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_a_figure_that_is_not_finite_is_doubted_and_the_others_are_there(tmp_path, monkeypatch, capsys):
    """A bound of infinity, of which neither an interval nor bits can be told."""
    from genai_cli.models.vae import VAE

    small = ("model.likelihood=logistic", "model.width=4", "train.steps=1", "train.epochs=null", "train.batch_size=8")
    assert cli.run(["train", "model=vae", "dataset=mnist", *small, *QUIET, f"run.dir={tmp_path}/run"]) == 0
    evaluate = VAE.evaluate

    def broken(model, batch, **options):
        figures = evaluate(model, batch, **options)
        return {key: value / (key == "kl") for key, value in figures.items()}

    monkeypatch.setattr(VAE, "evaluate", broken)
    assert cli.run(["evaluate", f"run={tmp_path}/run", "metrics=[figures]", "device=cpu"]) == 0
    (path,) = (tmp_path / "run" / "evaluation").glob("*.json")
    found = metrics_of(json.loads(path.read_text()))
    assert found["negative_elbo"]["value"] is None and "not finite" in str(found["negative_elbo"])
    assert found["kl"]["value"] >= 0 and found["bits_per_dim"]["interval"] is None


def test_what_could_not_be_written_is_refused_first_and_what_cannot_is_shown_all_the_same(image_run, tmp_path, capsys):
    run = shutil.copytree(image_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    words = ["evaluate", f"run={run}", "metrics=[figures]", "device=cpu"]
    (run / "evaluation").touch()
    assert cli.run(words) == ExitCode.STORAGE
    out, err = capsys.readouterr()
    assert f"run={run}: no file can be written in {run}/evaluation" in err and "real_probability" not in out
    (run / "evaluation").unlink()
    faults.plan("storage:enospc:1")
    assert cli.run(words) == ExitCode.STORAGE
    faults.plan("")
    out, err = capsys.readouterr()
    assert "the disk is full" in err and "real_probability" in out


def test_evaluating_twice_gives_the_same_digits_and_prints_the_hash(image_run, capsys):
    for _ in range(2):
        assert cli.run(["evaluate", f"run={image_run}", "num_samples=200", "device=cpu"]) == 0
    first, second = read_records(image_run)[-2:]
    assert first["metrics"] == second["metrics"]
    names = metrics_of(first)
    assert {
        "real_probability", "fake_probability", "frechet", "kid", "precision", "recall", "density", "coverage", "modes",
        "mode_divergence", "intra_class_ms_ssim", "memorisation", "memorisation_ratio",
    } == names.keys()  # fmt: skip
    out = capsys.readouterr().out
    assert first["split_sha256"][:12] in out and "coverage (high)" in out
    assert first["model"] == "gan" and first["step"] == 40 and first["weights"] == "averaged"
    assert names["frechet"]["protocol"]["extractor_accuracy"] > 0.9
    assert any("not conditional" in note for note in first["notes"])


def test_the_batch_size_changes_no_digit_that_is_shown(image_run):
    for size in (64, 50):
        words = ("metrics=[frechet,manifold]", "num_samples=100", f"batch_size={size}", "device=cpu")
        assert cli.run(["evaluate", f"run={image_run}", *words]) == 0
    one, other = (metrics_of(record) for record in read_records(image_run)[-2:])
    assert one.keys() == {"frechet", "precision", "recall", "density", "coverage"}
    for name, metric in one.items():
        assert metric["value"] == pytest.approx(other[name]["value"], rel=1e-4)
    assert "too few" in one["frechet"]["why_not"]


def test_points_are_compared_by_their_coordinates(tmp_path):
    words = ("model=gan", "dataset=toy2d", "dataset.held_out=400", "dataset.size=500", "model.width=8")
    assert cli.run(["train", *words, "train.steps=20", f"run.dir={tmp_path}/run", *QUIET]) == 0
    assert cli.run(["evaluate", f"run={tmp_path}/run", "num_samples=300", "device=cpu"]) == 0
    found = metrics_of(read_records(tmp_path / "run")[-1])
    assert {"frechet", "kid", "energy", "precision", "recall", "modes", "mode_divergence"} <= found.keys()
    assert found["energy"]["controls"]["real"] < found["energy"]["value"]


def test_text_has_nats_and_bits_per_character_chunked_and_sliding(tmp_path):
    (tmp_path / "text.txt").write_text("Où sont les neiges d'antan? 雪はどこ。\n" * 60, encoding="utf-8")
    words = ("model=gpt", "dataset=text", f"dataset.path={tmp_path}/text.txt", "dataset.tokenizer=byte")
    small = ("model.width=16", "model.depth=1", "model.heads=2", "dataset.length=16", "train.steps=60")
    assert cli.run(["train", *words, *small, f"run.dir={tmp_path}/run", *QUIET]) == 0
    assert cli.run(["evaluate", f"run={tmp_path}/run", "device=cpu"]) == 0
    record = read_records(tmp_path / "run")[-1]
    found = metrics_of(record)
    chunked, sliding = found["bits_per_character"], found["bits_per_character_sliding"]
    assert chunked["value"] == pytest.approx(found["nats_per_character"]["value"] / 0.6931471805599453)
    protocol = chunked["protocol"]
    assert protocol["characters"] < protocol["tokens"] == sliding["protocol"]["tokens"]  # bytes
    per_token = found["nll"]["value"] * protocol["tokens"] / protocol["characters"]
    assert found["nats_per_character"]["value"] == pytest.approx(per_token)
    assert found["nll"]["protocol"]["bound"] == "exact" and found["nll"]["unit"] == "nats per token"
    assert sliding["value"] < chunked["value"] * 1.02 < chunked["controls"]["uniform"]
    for name in ("nll", "nats_per_character", "bits_per_character", "bits_per_character_sliding"):
        (low, high), error = found[name]["interval"], found[name]["standard_error"]
        assert 2 < (high - low) / error < 6, "a 95 % interval is about four standard errors wide, in the same unit"


def test_two_folders_of_images_are_compared_without_a_model(tmp_path, capsys):
    write_blobs(tmp_path / "real", 120, seed=0, labelled=False)
    write_blobs(tmp_path / "fake", 90, seed=1, labelled=True)
    words = (f"real={tmp_path}/real", f"fake={tmp_path}/fake", "image_size=16", "channels=1", f"root={tmp_path}/out")
    assert cli.run(["evaluate", *words, "device=cpu"]) == 0
    (record,) = read_records(tmp_path / "out")
    found = metrics_of(record)
    assert record["run"] is None and {"frechet", "kid", "precision", "recall", "ms_ssim"} <= found.keys()
    assert found["frechet"]["value"] < found["frechet"]["controls"]["noise"]
    assert "too few" in found["frechet"]["why_not"]  # sixty images and 64 features
    assert record["split_sha256"][:12] in capsys.readouterr().out


def test_folders_can_be_compared_by_features_of_imagenet(tmp_path):
    for number, name in enumerate(("real", "fake")):
        write_blobs(tmp_path / name, 14, seed=number, labelled=False)
    words = (f"real={tmp_path}/real", f"fake={tmp_path}/fake", "image_size=16", f"root={tmp_path}", "metrics=[kid]")
    assert cli.run(["evaluate", *words, "extractor=efficientnet", "device=cpu"]) == 0
    (metric,) = read_records(tmp_path)[-1]["metrics"]
    assert metric["protocol"]["id"] == "kid/efficientnet" and metric["protocol"]["features"] == 1280


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["real={tmp}"], "fake is required"),
        (["real={tmp}", "fake={tmp}/nowhere"], "nowhere is not a folder"),
        (["real={tmp}", "fake={tmp}", "metrics=[text]"], "metrics=[text] are not of folders"),
        (["real={tmp}", "fake={tmp}", "metrics=[frechte]"], "did you mean frechet?"),
        (["real={tmp}", "fake={tmp}"], "holds no images"),
    ],
)
def test_what_cannot_be_is_refused(words, expected, tmp_path, capsys):
    assert cli.run(["evaluate", *(word.format(tmp=tmp_path) for word in words)]) in (2, 3)
    assert expected in capsys.readouterr().err


def test_a_run_and_folders_exclude_one_another(image_run, capsys):
    assert cli.run(["evaluate", f"run={image_run}", f"real={image_run}", f"fake={image_run}"]) == 2
    assert "not both" in capsys.readouterr().err


def test_metrics_of_another_modality_are_refused(image_run, capsys):
    assert cli.run(["evaluate", f"run={image_run}", "metrics=[text]", "device=cpu"]) == 2
    assert "metrics=[text] are not of image data" in capsys.readouterr().err


def test_a_scored_run_kept_its_best_checkpoint(image_run):
    lines = [json.loads(line) for line in (image_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/frechet" in line] == [20, 40]
