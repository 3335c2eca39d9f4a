"""What every model of `conf/model` must do, on every kind of data that it accepts.

A new model is under these proofs from the moment its YAML exists: `pytest tests/models -k NAME`.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genai_cli import registry, runs
from genai_cli.config import Config, DeviceConfig, LoggerConfig, OptimizerConfig
from genai_cli.configure import configure
from genai_cli.data.base import Batch, Spec, TensorSplit
from genai_cli.data.music_tokens import VoiceTokenizer
from genai_cli.data.smiles_tokens import SmilesTokenizer, problem_of
from genai_cli.data.tokenizers import CharTokenizer, Numbers
from genai_cli.engine.checkpoint import read
from genai_cli.engine.distributed import World
from genai_cli.engine.figures import held_out_figures
from genai_cli.engine.sampling import draw
from genai_cli.engine.signals import Signals
from genai_cli.engine.step import OptimizerStep
from genai_cli.engine.trainer import Trainer
from genai_cli.errors import ExitCode
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.overrides import Overrides
from genai_cli.registry import MODEL
from tests.models.ranks import run_on_two_ranks

CPU = torch.device("cpu")
NUM_EXAMPLES, BATCH_SIZE = 20, 8  # an epoch ends inside the third step
CHARACTERS = "abcdefghij\n"
MOLECULES = SmilesTokenizer(["(", ")", "1", "=", "C", "N", "O"])
MUSIC = VoiceTokenizer([[60, 63], [50, 52]], steps_per_quarter=2)

SPECS = {
    "grey 28": Spec("image", (1, 28, 28), (-1.0, 1.0), classes=("even", "odd")),
    "colour 32": Spec("image", (3, 32, 32), (-1.0, 1.0), classes=("even", "odd")),
    "pairs": Spec(
        "image", (3, 16, 16), (-1.0, 1.0), source=Spec("image", (1, 16, 16), (-1.0, 1.0)), is_paired=True
    ),
    "domains": Spec("image", (1, 16, 16), (-1.0, 1.0), source=Spec("image", (3, 16, 16), (-1.0, 1.0))),
    "points": Spec("points", (2,)),
    "text": Spec(
        "text", (12,),
        tokenizer=CharTokenizer("".join(sorted(CHARACTERS))).to_json(), vocabulary_size=len(CHARACTERS),
    ),
    "molecules": Spec(
        "molecules", (12,), tokenizer=MOLECULES.to_json(), vocabulary_size=MOLECULES.vocabulary_size
    ),
    "music": Spec("music", (12,), tokenizer=MUSIC.to_json(), vocabulary_size=MUSIC.vocabulary_size),
    "codes": Spec("codes", (9,), tokenizer=Numbers(8).to_json(), vocabulary_size=8, classes=("even", "odd")),
    "latents": Spec("latents", (2, 4, 4), classes=("even", "odd")),
    "rolls": Spec("rolls", (10, 88), (0.0, 1.0), levels=2),
    "series": Spec("series", (6, 2), (0.0, 1.0), columns=("a", "b")),
    "audio": Spec("audio", (16,), (-1.0, 1.0), classes=("even", "odd"), sample_rate=100),
}  # fmt: skip
DATASETS = {  # a preset of each modality, to compose with
    "image": "mnist", "points": "toy2d", "text": "text", "music": "chorales", "molecules": "qm9",
    "codes": "codes dataset.run=first", "latents": "latents dataset.run=first", "rolls": "jsb_rolls",
    "series": "sines", "audio": "tones",
}  # fmt: skip


def pairs() -> Iterator[tuple[str, str]]:
    """Every model preset with every kind of data that it accepts."""
    for preset in registry.presets("model"):
        definition = registry.defined_by(registry.presets("model")[preset], MODEL)
        for kind, spec in SPECS.items():
            is_for_translators = (spec.source is not None) == (definition.translates is not None)
            has_pairs = spec.is_paired or definition.translates != "pairs"
            if spec.modality in definition.modalities and is_for_translators and has_pairs:
                yield preset, kind


def model_name(preset: str) -> str:
    """The file of `genai_cli/models` that a preset of `conf/model` names."""
    path = registry.presets("model")[preset].path
    return next(
        line.split(":")[1].strip() for line in path.read_text().splitlines() if line.strip().startswith("name:")
    )


def tiny_config(preset: str, kind: str, **train: object) -> Config:
    """The preset as a user composes it, at its smallest, for a few steps."""
    config = composed(preset, "edges" if SPECS[kind].source is not None else DATASETS[SPECS[kind].modality])
    small = {
        "epochs": None, "steps": 5, "batch_size": BATCH_SIZE, "log_every": 2, "sample_every": None, "save_every": 2,
        "evaluate_every": None, "num_samples": 2, "ema": 0.9, "keep": 9,
    }  # fmt: skip
    return dataclasses.replace(
        config,
        model={**config.model, **tiny_options(config.model["name"], kind)},
        optimizer=dataclasses.replace(config.optimizer, warmup_steps=0),
        train=dataclasses.replace(config.train, **{**small, **train}),
        device=DeviceConfig(name="cpu"),
        logger=LoggerConfig(tensorboard=False),
    )


@functools.cache
def composed(preset: str, data: str) -> Config:
    """What a user composes; a dozen proofs take it, and Hydra takes 60 ms."""
    overrides = Overrides(f"model={preset} dataset={data}".split(), is_sweep=False, config_dir=None)
    return configure("train", next(overrides.jobs()), overrides).config


def tiny_options(name: str, kind: str) -> dict[str, object]:
    tiny = registry.define(MODEL, name).tiny
    return {key: value for key, value in tiny.items() if kind != "codes" or key not in ("resolution", "shades")}


def tiny_split(spec: Spec, count: int = NUM_EXAMPLES) -> TensorSplit:
    """Data of the spec's kind without meaning; in the text, letters follow each other."""
    random = torch.Generator().manual_seed(7)
    if spec.is_tokens:
        start = torch.arange(count)[:, None]
        tokens = (start + torch.arange(spec.shape[0] + 1)) % spec.vocabulary_size  # (N, T + 1)
        return TensorSplit(
            {"tokens": tokens, "mask": torch.ones(count, *spec.shape, dtype=torch.bool)}, lambda rows: rows
        )
    data = torch.randn(count, *spec.shape, generator=random)
    if spec.modality == "rolls":
        rows = {"roll": (data > 1.5).float(), "mask": torch.ones(count, spec.shape[0], dtype=torch.bool)}
        return TensorSplit(rows, lambda rows: rows)
    if spec.value_range is not None:
        low, high = spec.value_range
        data = low + (high - low) * (data.mul(2).tanh() + 1) / 2
    rows = {spec.key: data, "label": torch.arange(count) % 2}
    if spec.source is not None:
        rows["source"] = torch.randn(count, *spec.source.shape, generator=random).mul(2).tanh()
    return TensorSplit(rows, lambda rows: rows)


def build(config: Config, spec: Spec) -> GenerativeModel:
    torch.manual_seed(config.seed)
    return runs.build_model(config, spec)


def trainer(config: Config, spec: Spec, folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(
        build(config, spec), tiny_split(spec), tiny_split(spec, 6), config, folder=folder, world=World(), device=CPU
    )


def train(config: Config, spec: Spec, folder: Path) -> None:
    assert trainer(config, spec, folder).run(Signals()).exit_code == ExitCode.DONE


def batch_of(spec: Spec) -> Batch:
    rows = tiny_split(spec).fetch(torch.arange(BATCH_SIZE))
    return Batch(rows, BatchRandom(0, stop=BATCH_SIZE))


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints need not outlast a power failure here, and waiting for the disk is half of the time of a save."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


every_pair = pytest.mark.parametrize(("preset", "kind"), list(pairs()))


class Recorder:
    """A `Step` that runs a model's losses and their gradients, and updates nothing."""

    number = 0

    def __init__(self, model: GenerativeModel):
        self.model = model
        self.batch = batch_of(model.spec)
        self.reached: set[str] = set()
        self.losses: dict[str, Tensor] = {}

    def minimize(self, group: str, loss, *, batch: int = 0) -> None:
        value, metrics = loss(self.batch)
        assert value.shape == () and all(metric.shape == () for metric in metrics.values())
        self.losses[group] = value.detach()
        members = dict(self.model.named_parameters())
        wanted = {id(parameter) for parameter in self.model.parameter_groups()[group]}
        names = [name for name, parameter in members.items() if id(parameter) in wanted and parameter.requires_grad]
        gradients = torch.autograd.grad(value, [members[name] for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                assert gradient.isfinite().all(), name
                self.reached.add(name)


@every_pair
def test_one_step_is_finite_and_every_parameter_gets_a_gradient(preset: str, kind: str) -> None:
    model = build(tiny_config(preset, kind), SPECS[kind])
    recorder = Recorder(model)
    model.train_step(recorder)
    assert all(loss.isfinite() for loss in recorder.losses.values())
    assert set(recorder.losses) == set(model.parameter_groups())
    assert recorder.reached == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@every_pair
def test_parameter_groups_partition_the_parameters(preset: str, kind: str) -> None:
    model = build(tiny_config(preset, kind), SPECS[kind])
    grouped = [id(parameter) for members in model.parameter_groups().values() for parameter in members]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert {id(parameter) for parameter in model.ema_parameters()} <= set(grouped)


@every_pair
def test_training_lowers_the_loss_on_one_batch(preset: str, kind: str) -> None:
    """Every player, against opponents that stand still, gets better at a fixed batch, within 40 steps."""
    config, spec = tiny_config(preset, kind), SPECS[kind]
    for group in build(config, spec).parameter_groups():
        model = build(config, spec)
        before = loss_of(model, group)
        optimizer = torch.optim.Adam(list(model.parameter_groups()[group]), lr=3e-3)
        for _ in range(4):
            for _ in range(10):
                model.train_step(OneGroup(model, group, optimizer))
            if loss_of(model, group) < before:
                break
        else:
            raise AssertionError(f"{group} does not get better")


def loss_of(model: GenerativeModel, group: str) -> Tensor:
    recorder = Recorder(model)
    model.train_step(recorder)
    return recorder.losses[group]


class OneGroup:
    """A `Step` that updates one group, always on the same batch with the same noise."""

    number = 0

    def __init__(self, model: GenerativeModel, group: str, optimizer: torch.optim.Optimizer):
        self.batch, self.group, self.optimizer = batch_of(model.spec), group, optimizer

    def minimize(self, group: str, loss, *, batch: int = 0) -> None:
        value, _ = loss(self.batch)
        if group == self.group:
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()


@every_pair
def test_resume_is_bitwise(preset: str, kind: str, tmp_path: Path) -> None:
    """A run stopped and taken up again after every step ends in the same bytes and the same log as one left alone.

    So at the first step and the last, in the middle of an epoch and at its end, with micro-batches in play.
    """
    spec = SPECS[kind]
    config = tiny_config(preset, kind, accumulate=2, evaluate_every=3, sample_every=4, steps=6)
    train(config, spec, tmp_path / "whole")
    for step in range(1, 6):
        interrupt_after(step, config, spec, tmp_path / "parts")
    train(config, spec, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def interrupt_after(step: int, config: Config, spec: Spec, folder: Path) -> None:
    """Train until a signal arrives during `step`; the run saves and stops."""
    signals = Signals()
    run = trainer(config, spec, folder)
    take = run.step.run

    def run_and_ring(number: int) -> None:
        take(number)
        if number + 1 == step:
            signals.received = 15

    run.step.run = run_and_ring
    assert run.run(signals).step == step


def assert_same_run(whole: Path, parts: Path) -> None:
    final, other = (sorted((folder / "checkpoints").glob("step-*"))[-1] for folder in (whole, parts))
    assert final.name == other.name
    for name in ("model", "ema", "optimizer"):
        expected, found = getattr(read(final), name), getattr(read(other), name)
        assert expected.keys() == found.keys() and expected
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert (final / "state.json").read_bytes() == (other / "state.json").read_bytes()
    assert series(whole) == series(parts)


def series(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run, without its clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith("time/")} for line in lines]


@every_pair
def test_a_checkpoint_holds_all_that_training_changed(preset: str, kind: str, tmp_path: Path) -> None:
    """A model rebuilt from it has every parameter and buffer of the trained one, also those that only samples need."""
    config, spec = tiny_config(preset, kind, ema=None, steps=3), SPECS[kind]
    run = trainer(config, spec, tmp_path)
    run.run(Signals())
    again = build(config, spec)
    again.load_state_dict(read(sorted((tmp_path / "checkpoints").glob("step-*"))[-1]).model)
    for trained, rebuilt in (
        (run.model.named_parameters, again.named_parameters),
        (run.model.named_buffers, again.named_buffers),
    ):
        found = dict(rebuilt())
        for name, tensor in trained():
            assert torch.equal(found[name], tensor), name


@every_pair
def test_samples_obey_the_spec_and_depend_on_their_own_seed_alone(preset: str, kind: str) -> None:
    spec = SPECS[kind]
    model = build(tiny_config(preset, kind), spec).eval()
    sources = tiny_split(spec)
    samples = draw(model, 5, seed=3, batch_size=5, device=CPU, sources=sources)
    assert samples.shape == (5, *spec.shape)
    if spec.is_tokens:
        assert samples.dtype == torch.int64 and samples.min() >= 0 and samples.max() < spec.vocabulary_size
    else:
        assert samples.isfinite().all()
        if spec.value_range is not None:
            assert samples.min() >= spec.value_range[0] and samples.max() <= spec.value_range[1]
    in_parts = draw(model, 5, seed=3, batch_size=2, device=CPU, sources=sources)
    torch.testing.assert_close(in_parts, samples, atol=1e-5, rtol=1e-4)
    torch.manual_seed(99)  # the global generator plays no part
    first = draw(model, 3, seed=3, batch_size=3, device=CPU, sources=sources)
    torch.testing.assert_close(first, samples[:3], atol=1e-5, rtol=1e-4)
    assert not torch.equal(draw(model, 5, seed=4, batch_size=5, device=CPU, sources=sources), samples)


@pytest.mark.parametrize(("preset", "kind"), [pair for pair in pairs() if pair[1] in ("music", "molecules")])
def test_an_untrained_model_draws_what_reads_back(preset: str, kind: str) -> None:
    """Music always, molecules where the grammar is asked for: every token of every sample stands where it may."""
    model = build(tiny_config(preset, kind), SPECS[kind]).eval()
    options = {"grammar": True} if kind == "molecules" else {}
    for row in draw(model, 6, seed=0, batch_size=6, device=CPU, options=options):
        if kind == "molecules":
            assert problem_of(MOLECULES.decode(row)) is None
        else:
            may_follow = MUSIC.grammar(1).may_follow
            after = row[1:] if MUSIC.end not in row else row[1 : row.tolist().index(MUSIC.end) + 1]
            assert may_follow[0, row[0]] and may_follow[row[: len(after)], after].all()


@every_pair
def test_held_out_figures_repeat_and_ignore_the_batch_size(preset: str, kind: str) -> None:
    model = build(tiny_config(preset, kind), SPECS[kind]).eval()
    split = tiny_split(SPECS[kind])
    figures = [
        held_out_figures(model, split, seed=0, batch_size=size, device=CPU) for size in (NUM_EXAMPLES, NUM_EXAMPLES, 7)
    ]
    assert figures[0] == figures[1]
    for key, figure in figures[0].items():
        assert figures[2][key].mean == pytest.approx(figure.mean, rel=1e-4, abs=1e-5)
    assert model.monitor is None or model.monitor in figures[0]


@every_pair
def test_pictures_have_the_shape_of_the_data(preset: str, kind: str) -> None:
    spec = SPECS[kind]
    model = build(tiny_config(preset, kind), spec).eval()
    batch = Batch(tiny_split(spec).fetch(torch.arange(4)), SampleRandom(0, range(4)))
    for picture in model.pictures(batch).values():
        assert picture.shape[1:] == spec.shape


@every_pair
def test_latents_decode_to_data_and_data_encode_to_latents(preset: str, kind: str) -> None:
    spec = SPECS[kind]
    model = build(tiny_config(preset, kind), spec).eval()
    defines = {name for name in ("draw_latent", "decode", "encode") if is_defined(model, name)}
    assert "encode" not in defines or "decode" in defines
    assert ("decode" in defines) == ("draw_latent" in defines)
    if "decode" in defines:
        latent = model.draw_latent(SampleRandom(3, range(4)))
        decoded = model.decode(latent)
        assert latent.shape == (4, model.latent_dim) and decoded.shape == (4, *spec.shape)
        if spec.value_range is not None:
            assert decoded.min() >= spec.value_range[0] and decoded.max() <= spec.value_range[1]
    if "encode" in defines:
        assert model.encode(batch_of(spec)[spec.key]).shape == (BATCH_SIZE, model.latent_dim)


@every_pair
def test_a_posterior_of_examples_is_a_mean_and_a_log_variance(preset: str, kind: str) -> None:
    spec = SPECS[kind]
    model = build(tiny_config(preset, kind), spec).eval()
    if is_defined(model, "posterior"):
        mean, logvar = model.posterior(batch_of(spec)[spec.key])
        assert mean.shape == logvar.shape and mean.dim() == 2 and len(mean) == BATCH_SIZE


def is_defined(model: GenerativeModel, method: str) -> bool:
    return getattr(type(model), method) is not getattr(GenerativeModel, method)


@every_pair
def test_two_ranks_equal_one(preset: str, kind: str, tmp_path: Path) -> None:
    """The same global batch on one process and on two gives the same weights and the same losses, to rounding."""
    alone = sgd_steps(preset, kind, World())
    together = run_on_two_ranks(sgd_steps, preset, kind)
    for key, tensor in alone.items():
        torch.testing.assert_close(
            together[key], tensor, atol=1e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
        )


def sgd_steps(preset: str, kind: str, world: World) -> dict[str, Tensor]:
    """Weights and mean metrics after three steps of SGD: Adam would turn rounding into whole steps."""
    config, spec = tiny_config(preset, kind), SPECS[kind]
    config = dataclasses.replace(config, optimizer=OptimizerConfig(name="sgd", lr=2e-3))
    from genai_cli.engine.batches import Batches

    model = build(config, spec)
    batches = Batches(
        tiny_split(spec), seed=0, batch_size=BATCH_SIZE, batches_per_step=model.batches_per_step,
        rank=world.rank, world_size=world.size,
    )  # fmt: skip
    step = OptimizerStep(model, batches, config.train, config.optimizer, seed=0, total_steps=3, world=world, device=CPU)
    for number in range(3):
        step.run(number)
    metrics = {key: torch.tensor(value, dtype=torch.float32) for key, value in step.averages.means().items()}
    return {**{key: tensor.clone() for key, tensor in model.state_dict().items()}, **metrics}
