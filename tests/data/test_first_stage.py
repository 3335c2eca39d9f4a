"""Facts about data that a trained run makes: codes decode as the quantiser does, latents have variance one, one
checkpoint alone counts. Proved on runs of the command line, over a folder of small images."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from genai_cli import runs, schema
from genai_cli.commands import evaluate, measure_samples, report, sample, train
from genai_cli.config import EvaluateConfig, ReportConfig, SampleConfig
from genai_cli.configure import configure
from genai_cli.data import first_stage
from genai_cli.data.first_stage import keep, read_kept, scale_of, scaled, unscaled
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.overrides import Overrides

CPU = torch.device("cpu")
SHORT = ["train.batch_size=8", "train.sample_every=null", "train.num_samples=4", "train.evaluate_every=null",
         "logger=none", "device=cpu"]  # fmt: skip
QUANTISER = ["model.width=4", "model.num_codes=8", "model.prior_width=8", "model.prior_depth=1", "model.prior_heads=2"]
TRANSFORMER = ["model.width=16", "model.depth=1", "model.heads=2"]


def config_of(*words: str):
    overrides = Overrides([*SHORT, *words], is_sweep=False, config_dir=None)
    return configure("train", next(overrides.jobs()), overrides).config


def run(folder: Path, *words: str) -> Path:
    assert train.run(config_of(*words, f"run.dir={folder}")) == ExitCode.DONE
    return folder


def go_on(folder: Path, *, steps: int) -> None:
    overrides = Overrides([f"run={folder}", f"train.steps={steps}"], is_sweep=False, config_dir=None)
    train.run(configure("train", next(overrides.jobs()), overrides).config, folder=folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> dict[str, Path]:
    """A quantiser and an autoencoder of 60 pictures of 8 x 8 pixels in two classes."""
    folder = tmp_path_factory.mktemp("first")
    generator = numpy.random.default_rng(0)
    for number in range(60):
        place = folder / "pictures" / ("dark" if number % 2 else "light")
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128, (8, 8), dtype=numpy.uint8) + 127 * (1 - number % 2)
        Image.fromarray(pixels.astype(numpy.uint8)).save(place / f"{number:02d}.png")
    data = pictures_of(folder)
    return {
        "vqvae": run(folder / "vqvae", "model=vqvae", *QUANTISER, *data, "train.steps=6"),
        "ae": run(folder / "ae", "model=ae", "model.width=8", "model.latent_dim=3", *data, "train.steps=6"),
        "gpt": run(
            folder / "gpt", "model=gpt", *TRANSFORMER, "dataset=codes", f"dataset.run={folder / 'vqvae'}",
            "train.steps=4", "train.sample_every=4",
        ),
    }  # fmt: skip


def pictures_of(folder: Path) -> list[str]:
    return [
        "dataset=folder", f"dataset.path={folder / 'pictures'}", "dataset.image_size=8", "dataset.channels=1",
        "dataset.validation=0.2", "dataset.test=0.2",
    ]  # fmt: skip


def dataset_of(kind: str, folder: Path):
    return runs.build_dataset(config_of("model=gpt" if kind == "codes" else "model=ldm", f"dataset={kind}",
                                        f"dataset.run={folder}"))  # fmt: skip


def trained(folder: Path):
    return runs.load_trained(folder, schema.read_run_config(folder), checkpoint="last", weights="auto", device=CPU)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_codes_are_those_of_the_runs_own_split_and_decode_as_the_quantiser_does(first, split):
    dataset, quantiser = dataset_of("codes", first["vqvae"]), trained(first["vqvae"])
    rows = dataset.load(split)
    images = dataset.source.load(split)
    assert len(rows) == len(images) and dataset.spec.classes == ("dark", "light")
    everything = torch.arange(len(rows))
    found, expected = rows.fetch(everything), images.fetch(everything)
    assert (found["tokens"][:, 0] == 0).all() and found["mask"].all()
    with torch.no_grad():
        codes = quantiser.model.codes_of(expected["image"])
        decoded = quantiser.model.image_of(codes)
    assert torch.equal(found["tokens"][:, 1:], codes) and torch.equal(found["label"], expected["label"])
    torch.testing.assert_close(dataset.code_decoder(codes), decoded)
    assert dataset.code_decoder.spec == quantiser.spec


def test_codes_are_made_once_for_each_checkpoint(first, monkeypatch):
    dataset = dataset_of("codes", first["vqvae"])
    content = dataset.load("train").content_hash()
    again = dataset_of("codes", first["vqvae"])
    monkeypatch.setattr(type(again.source), "load", lambda *_: pytest.fail("encoded a second time"))
    assert again.load("train").content_hash() == content
    (kept,) = (first["vqvae"] / "codes").glob(f"codes-{dataset.stage.sha256[:16]}-train.safetensors")
    kept.write_bytes(kept.read_bytes()[:50])  # cut short: made anew
    monkeypatch.undo()
    assert dataset_of("codes", first["vqvae"]).load("train").content_hash() == content


def test_kept_codes_are_of_their_own_weights_or_none(tmp_path):
    path, codes = tmp_path / "codes" / "kept.safetensors", {"codes": torch.arange(6).view(2, 3)}
    keep(path, codes, "a" * 64)
    assert torch.equal(read_kept(path, "codes", "a" * 64)["codes"], codes["codes"])
    assert read_kept(path, "codes", "b" * 64) is None and read_kept(path, "latents", "a" * 64) is None
    path.write_bytes(path.read_bytes()[:20])
    assert read_kept(path, "codes", "a" * 64) is None


def test_very_large_codes_are_made_anew_each_time(first, monkeypatch):
    shutil.rmtree(first["vqvae"] / "codes", ignore_errors=True)
    monkeypatch.setattr(first_stage, "MOST_BYTES", 100)
    assert len(dataset_of("codes", first["vqvae"]).load("train"))
    assert not (first["vqvae"] / "codes").exists()


def test_samples_of_a_model_of_codes_are_images(first, tmp_path):
    assert list((first["gpt"] / "samples").glob("step-*.png"))
    config = SampleConfig(run=str(first["gpt"]), num_samples=3, out=str(tmp_path / "drawn"))
    assert sample.run(config, folder=first["gpt"]) == ExitCode.DONE
    assert sorted(path.name for path in (tmp_path / "drawn").glob("0*.png")) == ["00000.png", "00001.png", "00002.png"]
    with Image.open(tmp_path / "drawn" / "00000.png") as image:
        assert image.size == (8, 8)
    short = SampleConfig(run=str(first["gpt"]), num_samples=1, options={"length": 3}, out=str(tmp_path / "short"))
    with pytest.raises(ConfigError, match="an example has 4 codes, and samples have 3"):
        sample.run(short, folder=first["gpt"])


def test_samples_of_a_model_of_codes_are_judged_as_images(first, monkeypatch):
    monkeypatch.setattr(measure_samples, "_classifier", lambda *_: None)  # which would be trained for these data
    config = EvaluateConfig(run=str(first["gpt"]), num_samples=12, metrics=("figures", "kid"), extractor="random")
    assert evaluate.run(config, folder=first["gpt"]) == ExitCode.DONE
    (record,) = (json.loads(path.read_text()) for path in (first["gpt"] / "evaluation").glob("*.json"))
    names = {metric["name"] for metric in record["metrics"]}
    assert "nll" in names and any("kid" in name for name in names)


def test_a_run_is_decoded_by_the_weights_that_made_its_codes_or_not_at_all(first, tmp_path):
    moved = tmp_path / "vqvae"
    shutil.copytree(first["vqvae"], moved)
    second = tmp_path / "gpt"
    words = ["model=gpt", *TRANSFORMER, "dataset=codes", f"dataset.run={moved}", f"run.dir={second}"]
    run(second, *words, "train.steps=2")
    assert trained(second).model.shown(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 1, 8, 8)
    go_on(moved, steps=9)  # the quantiser learns on
    with pytest.raises(ConfigError, match=r"dataset\.run=.* is at step 9 .* but the codes are of step 6") as refused:
        go_on(second, steps=4)
    assert len(refused.value.problems) == 1
    assert trained(second).model.shown(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 1, 8, 8)  # step 6 is kept
    shutil.rmtree(moved)
    run(moved, "model=vqvae", *QUANTISER, *pictures_of(first["vqvae"].parent), "train.steps=6", "seed=1")
    with pytest.raises(ConfigError, match=r"dataset\.run=.* is at step 6 .* but the codes are of step 6"):
        trained(second)  # of another run's step 6
    shutil.rmtree(moved)
    with pytest.raises(ConfigError, match=r"dataset\.run=.* must be the run that makes the data: .* does not exist"):
        trained(second)


def test_what_cannot_make_the_data_is_refused_by_its_key(first, tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.run=.*: model=ae has no quantiser; .* dataset=latents"):
        dataset_of("codes", first["ae"])
    with pytest.raises(ConfigError, match=r"dataset\.run=.*: model=gpt has no encoder"):
        dataset_of("latents", first["gpt"])
    with pytest.raises(ConfigError, match=r"dataset\.run=latest: .*give its directory"):
        config_of("model=gpt", "dataset=codes", "dataset.run=latest")


@pytest.mark.parametrize(("kind", "shape"), [("ae", (3,)), ("vqvae", (32, 2, 2))])
def test_latents_have_variance_one_and_decode_as_the_autoencoder_does(first, kind, shape):
    dataset, autoencoder = dataset_of("latents", first[kind]), trained(first[kind])
    assert dataset.spec.shape == shape
    everything = torch.arange(len(dataset.load("train")))
    rows, images = dataset.load("train").fetch(everything), dataset.source.load("train").fetch(everything)["image"]
    assert rows["latent"].mean().abs() < 1e-3 and abs(rows["latent"].std(correction=0).item() - 1) < 2e-3
    with torch.no_grad():
        latents = autoencoder.model.latents_of(images)
        expected = autoencoder.model.decode_latents(latents)
        assert kind == "ae" or torch.equal(expected, autoencoder.model.image_of(autoencoder.model.codes_of(images)))
    torch.testing.assert_close(dataset.code_decoder(rows["latent"]), expected, atol=1e-4, rtol=0)


def test_scaling_has_an_inverse_and_one_factor_for_all():
    latents = torch.randn(500, 3, 4, 4) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1) + 7
    record = scale_of(latents)
    after = scaled(latents, record)
    assert after.mean((0, 2, 3)).abs().max() < 1e-3 and abs(after.var().item() - 1) < 2e-3
    torch.testing.assert_close(unscaled(after, record), latents, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std((0, 2, 3)) / after.std((0, 2, 3))[0], torch.tensor([1, 2, 0.5]),
                               atol=0.1, rtol=0)  # fmt: skip


def test_the_report_shows_what_samples_decode_to_and_the_doctor_compares_latents(first, tmp_path):
    folder = run(
        tmp_path / "ldm", "model=ldm", "model.width=8", "model.sampling_steps=2", "dataset=latents",
        f"dataset.run={first['ae']}", "train.steps=3", "train.sample_every=3",
    )  # fmt: skip
    assert [path.suffix for path in (folder / "samples").glob("step-*")] == [".png"]
    for place in (folder, first["gpt"]):
        assert report.run(ReportConfig(run=str(place)), folder=place) == ExitCode.DONE
        page = (place / "report.html").read_text()
        assert 'alt="samples"' in page and "not at hand" not in page
