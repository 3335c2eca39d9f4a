"""`genai evaluate` takes the options of the model's `sample`: checked like those of `genai sample`, in the protocol."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from genai_cli import cli, registry
from genai_cli.commands import measure_samples
from genai_cli.commands.measure_samples import class_shares, sampler
from genai_cli.config import EvaluateConfig
from genai_cli.data.mnist import Mnist
from genai_cli.data.stacked_mnist import StackedMnist
from genai_cli.metrics.features import random_extractor
from genai_cli.metrics.modes import histogram_divergence
from genai_cli.metrics.record import read_records
from genai_cli.models.biggan import BigGAN
from genai_cli.models.cyclegan import CycleGAN
from genai_cli.registry import MODEL
from tests.metrics.test_evaluate import QUIET, metrics_of, write_blobs
from tests.models.test_contract import SPECS, tiny_split

SMALL = {
    "ddpm": ("model=ddpm", "dataset=toy2d", "dataset.size=200", "dataset.held_out=300", "model.width=8"),
    "gpt": ("model=gpt", "dataset=text", "model.width=16", "model.depth=1", "model.heads=2", "dataset.length=24"),
    "series": (
        "model=wavenet", "dataset=sines", "dataset.size=100", "dataset.held_out=260", "model.width=8", "model.depth=2",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, words in SMALL.items():
        more = ("train.steps=4", "train.batch_size=8", f"run.dir={folder / name}", *QUIET)
        assert cli.run(["train", *words, *more]) == 0
    return folder


def test_options_of_sample_change_the_samples_and_stand_in_the_protocol(runs: Path):
    words = ["evaluate", f"run={runs}/ddpm", "metrics=[frechet]", "num_samples=250", "device=cpu"]
    for options in ([], ["solver=ddim", "steps=2"], ["solver=ddim", "steps=2"]):
        assert cli.run([*words, *options]) == 0
    default, few, again = (metrics_of(record)["frechet"] for record in read_records(runs / "ddpm")[-3:])
    assert default["protocol"]["sampler"]["steps"] == 50 and few["protocol"]["sampler"]["steps"] == 2
    assert few["protocol"]["sampler"]["solver"] == "ddim"
    assert few["value"] != default["value"] and few["protocol_id"] != default["protocol_id"]
    assert few == again


def test_series_are_compared_as_vectors_and_scored_by_the_model(runs: Path, capsys):
    words = ["evaluate", f"run={runs}/series", "num_samples=250", "device=cpu"]
    assert cli.run([*words, "metrics=[figures,frechet]", "temperature=0.5"]) == 0
    metrics = metrics_of(read_records(runs / "series")[-1])
    assert metrics["nll"]["protocol"]["n_real"] == 260 and metrics["nll"]["unit"] == "nats"
    assert metrics["frechet"]["protocol"]["preprocessing"].endswith("as one vector")
    assert metrics["frechet"]["protocol"]["sampler"]["temperature"] == 0.5
    assert metrics["frechet"]["controls"]["real"] < metrics["frechet"]["controls"]["noise"]
    assert cli.run([*words, "metrics=[frechet]", "length=30"]) == 2
    assert "length=30: data are compared as windows of 24" in capsys.readouterr().err


def test_passages_of_a_greedy_model_are_one_over_and_over(runs: Path):
    words = ["evaluate", f"run={runs}/gpt", "metrics=[passages]", "num_samples=3", "top_k=1", "device=cpu"]
    assert cli.run([*words, "length=60"]) == 0
    metrics = metrics_of(read_records(runs / "gpt")[-1])
    for name in ("distinct_1", "distinct_2", "distinct_3", "self_bleu"):
        assert metrics[name]["value"] == metrics[name]["controls"]["repeated"]
    assert metrics["copied_50"]["controls"]["train"] == 1
    for metric in metrics.values():
        assert metric["protocol"]["sampler"] == {
            "temperature": 1.0, "top_k": 1, "repetition_penalty": 1.0, "length": 60
        }  # fmt: skip
    assert cli.run([*words, "length=40"]) == 0
    record = read_records(runs / "gpt")[-1]
    assert "copied_50" not in metrics_of(record) and not record["voided"]
    assert "copied_50: texts of 40 tokens are shorter than 50 characters" in record["notes"]


@pytest.mark.parametrize(("direction", "side"), [("a_to_b", "image"), ("b_to_a", "source")])
def test_translations_are_held_against_data_of_their_own_domain(direction: str, side: str, monkeypatch):
    """Labels are of the images, so sources have none, and no classifier is trained for them."""
    spec = SPECS["domains"]
    split, taught, measured = tiny_split(spec), [], []
    dataset = SimpleNamespace(source=None, per_channel=None, spec=spec, load=lambda name: split)
    model = CycleGAN(spec, **CycleGAN.tiny).eval()
    trained = SimpleNamespace(model=model, spec=spec, config=SimpleNamespace(model={"name": "cyclegan"}))
    monkeypatch.setattr(measure_samples, "_classifier", lambda dataset, train, device: taught.append(train))
    monkeypatch.setattr(measure_samples, "measure_images", lambda images, *_, **__: measured.append(images) or [])
    config, cpu = EvaluateConfig(num_samples=5, sampling={"direction": direction}), torch.device("cpu")
    assert not list(measure_samples.measure_samples(config, trained, dataset, split, ("frechet",), {}, [], cpu))
    (images,) = measured
    expected = split.fetch(torch.arange(len(split)))[side]
    assert images.fake.shape[1:] == images.real.shape[1:] == expected.shape[1:]
    assert torch.equal(images.real.flatten(1).sort(0).values, expected.flatten(1).sort(0).values)
    has_labels = side == "image"
    assert ("label" in taught[0]) == (images.real_labels is not None) == has_labels


@pytest.mark.parametrize("label", [None, 1])
def test_samples_of_one_class_are_no_lesson_for_a_classifier(label, monkeypatch):
    spec = SPECS["grey 28"]
    split, measured, notes = tiny_split(spec), [], []
    dataset = SimpleNamespace(source=None, per_channel=None, spec=spec, load=lambda name: split)
    model = BigGAN(spec, **BigGAN.tiny).eval()
    trained = SimpleNamespace(model=model, spec=spec, config=SimpleNamespace(model={"name": "biggan"}))
    monkeypatch.setattr(measure_samples, "_classifier", lambda *_: None)
    monkeypatch.setattr(measure_samples, "measure_images", lambda *given, **_: measured.append(given) or [])
    config = EvaluateConfig(num_samples=4, sampling={} if label is None else {"label": label})
    groups, cpu = ("agreement", "classifier_accuracy_score"), torch.device("cpu")
    assert not list(measure_samples.measure_samples(config, trained, dataset, split, groups, {}, notes, cpu))
    ((images, _, left, _),) = measured
    assert images.asked.tolist() == ([0, 1, 0, 1] if label is None else [1] * 4)
    assert left == (groups if label is None else groups[:1])
    told = ["classifier_accuracy_score: samples of one class teach a classifier nothing"]
    assert notes == ([] if label is None else told)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run={runs}/ddpm", "stpes=3"], "no key of genai evaluate or of model=ddpm; did you mean steps?"),
        (["run={runs}/ddpm", "steps=0"], "steps=0 must be at least 1"),
        (["run={runs}/ddpm", "solver=eular"], "euler"),
        (["run={runs}/ddpm", "steps=900000", "metrics=[frechet]"], "model=ddpm cannot sample so"),
        (["run={runs}/ddpm", "steps=3", "metrics=[figures]"], "steps=3: options of samples, and the metrics figures"),
        (["run={runs}/gpt", "temperature=0.9", "metrics=[figures,text]"], "draw none; leave them out"),
        (["run={runs}/gpt", "sampling=3"], "sampling is no key of genai evaluate"),
        (["real={runs}", "fake={runs}", "steps=3"], "steps is no key of genai evaluate"),
        (["run={runs}/ddpm", "inception=a.pth", "extractor=random"], "give one of the two"),
    ],
)
def test_what_cannot_be_drawn_so_is_refused(runs: Path, words: list[str], expected: str, capsys):
    assert cli.run(["evaluate", *(word.format(runs=runs) for word in words), "device=cpu"]) == 2
    err = capsys.readouterr().err
    assert expected in err and "Traceback" not in err


@pytest.mark.parametrize("name", registry.names(MODEL))
def test_no_option_of_sample_is_another_key_of_evaluate(name: str):
    definition = registry.define(MODEL, name)
    taken = {*EvaluateConfig.__dataclass_fields__, *definition.evaluate_options}
    assert not set(definition.sample_options) & taken


def test_a_sampler_is_described_by_all_its_options():
    class Model:
        def sample(self, random, *, solver=None, steps=None, eta=None, spacing="uniform", label=None): ...

    class Run:
        model = Model()
        config = type("Config", (), {"model": {"name": "it", "solver": "ddim", "sampling_steps": 50}})

    assert sampler(Run, {}) == {"solver": "ddim", "steps": 50, "spacing": "uniform"}
    assert sampler(Run, {"steps": 5, "label": 3}) == {"solver": "ddim", "steps": 5, "spacing": "uniform", "label": 3}


@pytest.mark.parametrize(("is_published", "name"), [(False, "frechet"), (True, "fid")])
def test_a_distance_is_called_fid_only_by_the_published_weights(is_published, name, tmp_path, monkeypatch):
    """Which file is the published one is told by its hash: tests/metrics/test_inception.py."""
    extractor = replace(random_extractor((1, 16, 16)), name="inception", is_fid=is_published)
    monkeypatch.setattr(measure_samples, "inception_extractor", lambda path, device: extractor)
    for number, folder in enumerate(("real", "fake")):
        write_blobs(tmp_path / folder, 12, seed=number, labelled=False)
    words = (f"real={tmp_path}/real", f"fake={tmp_path}/fake", "image_size=16", "channels=1", "metrics=[frechet]")
    assert cli.run(["evaluate", *words, f"root={tmp_path}", "inception=any.pth", "device=cpu"]) == 0
    (record,) = read_records(tmp_path)
    (metric,) = record["metrics"]
    assert metric["name"] == name and metric["protocol"]["id"] == f"{name}/inception"
    assert ("no distance is called FID" in " ".join(record["notes"])) == (not is_published)


def test_a_file_without_inception_is_refused_before_samples_are_drawn(runs: Path, tmp_path: Path, capsys):
    write_blobs(tmp_path / "real", 12, seed=0, labelled=False)
    words = ("evaluate", f"real={tmp_path}/real", f"fake={tmp_path}/real", f"inception={tmp_path}/none.pth")
    assert cli.run([*words, "device=cpu"]) == 2
    assert "none.pth cannot be read" in capsys.readouterr().err


def test_shares_of_stacked_digits_are_products_of_those_of_one():
    """A count of the 26,000 stacked test images lies farther from them than the floor of a perfect generator allows."""
    data, one = StackedMnist(), Mnist().load("test")
    shares = class_shares(data, "test")
    of_one = one.fetch(torch.arange(len(one)))["label"].bincount(minlength=10).double() / len(one)
    assert shares.shape == (1000,) and shares.sum().item() == pytest.approx(1)
    assert shares[407].item() == pytest.approx((of_one[4] * of_one[0] * of_one[7]).item())
    assert class_shares(Mnist(), "test") is None
    split = data.load("test")
    counted = split.fetch(torch.arange(len(split)))["label"].bincount(minlength=1000)
    assert 0.017 < histogram_divergence(counted, shares) < 0.022  # (K - 1) / (2 n) = 0.019
