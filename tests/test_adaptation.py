"""Facts about runs that start from another: what trains and what stays, in any model, and how each resumes."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genai_cli import runs, schema
from genai_cli.cli import run
from genai_cli.config import AdapterConfig, Config
from genai_cli.data.base import Spec
from genai_cli.data.tokenizers import ByteTokenizer, CharTokenizer
from genai_cli.data.windows import Corpus, DataError
from genai_cli.engine.checkpoint import Checkpoint, load, read
from genai_cli.engine.distributed import World
from genai_cli.engine.figures import held_out_figures
from genai_cli.engine.sampling import draw
from genai_cli.engine.signals import Signals
from genai_cli.engine.step import OptimizerStep
from genai_cli.engine.trainer import Trainer
from genai_cli.errors import ConfigError
from genai_cli.nn.lora import merge_adapters
from tests.models.ranks import run_on_two_ranks
from tests.models.test_contract import (
    CPU,
    SPECS,
    Recorder,
    assert_same_run,
    batch_of,
    build,
    interrupt_after,
    model_name,
    pairs,
    tiny_config,
    tiny_split,
)  # fmt: skip

LORA = AdapterConfig("lora", rank=2, alpha=4.0)
WAYS = {"full": {}, "frozen": {"freeze": ("transformer.blocks.0", "emb*")}, "lora": {"adapter": LORA}}


def one_of_each() -> dict[str, str]:
    """A preset of every model -> the first kind of data that it learns."""
    found = {}
    for preset, kind in reversed(list(pairs())):
        found[model_name(preset)] = preset, kind
    return dict(found.values())


def base_of(config: Config, spec: Spec) -> Checkpoint:
    """Weights that another run might have left."""
    model = build(dataclasses.replace(config, seed=5), spec)
    return Checkpoint(7, model.state_dict(), state={"model": config.model, "spec": spec.to_json()})


def adapted(way: str, name: str = "gpt", kind: str = "text", **train: object):
    config = dataclasses.replace(tiny_config(name, kind, **train), init="elsewhere", **WAYS[way])
    base = base_of(config, SPECS[kind])
    model = build(config, SPECS[kind])
    return config, base, model, runs.adapt(model, config, base)


def trainer_of(way: str, folder: Path, **train: object) -> Trainer:
    config, _, model, adaptation = adapted(way, **train)
    folder.mkdir(exist_ok=True)
    split = tiny_split(model.spec)
    return Trainer(
        model, split, tiny_split(model.spec, 6), config, folder=folder, world=World(), device=CPU, adaptation=adaptation
    )


# -- any model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), one_of_each().items())
def test_adapters_of_any_model_learn_while_its_weights_stay(name, kind):
    """What an optimizer is given are the adapters, each gets a gradient, and at first they change nothing."""
    config = dataclasses.replace(tiny_config(name, kind), init="elsewhere", adapter=LORA)
    base = base_of(config, SPECS[kind])
    model = build(config, SPECS[kind])
    plain = build(dataclasses.replace(config, seed=5), SPECS[kind])
    try:
        runs.adapt(model, config, base)
    except ConfigError as error:
        assert "there is none" in str(error) or "nothing of" in str(error)  # no layer has a matrix called weight
        return
    torch.manual_seed(1)
    expected, found = Recorder(plain), Recorder(model)
    plain.train_step(expected)
    torch.manual_seed(1)
    model.train_step(found)
    for group, loss in expected.losses.items():
        torch.testing.assert_close(found.losses[group], loss, atol=1e-5, rtol=1e-5)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(".parametrizations.weight" in key for key in trained)
    assert found.reached <= trained


@pytest.mark.parametrize("way", WAYS)
def test_what_is_kept_is_bit_unchanged_and_no_part_of_a_checkpoint(way, tmp_path):
    run = trainer_of(way, tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    assert run.run(Signals()).step == 5
    after = run.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {name for name, parameter in run.model.named_parameters() if parameter.requires_grad}
    saved = read(sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1])
    assert changed == trained == set(saved.model) == set(saved.ema)
    assert {key.split("/")[1] for key in saved.optimizer} == trained
    assert (way == "full") == (trained == set(before))


@pytest.mark.parametrize("way", WAYS)
def test_resume_is_bitwise(way, tmp_path, monkeypatch):
    def trainer(config: Config, spec: Spec, folder: Path) -> Trainer:
        return trainer_of(way, folder, accumulate=2, steps=6)

    monkeypatch.setattr("tests.models.test_contract.trainer", trainer)
    trainer(None, None, tmp_path / "whole").run(Signals())
    for step in (1, 4):
        interrupt_after(step, None, None, tmp_path / "parts")
    trainer(None, None, tmp_path / "parts").run(Signals())
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_equal_one(way):
    alone, together = steps(way, World()), run_on_two_ranks(steps, way)
    for key, tensor in alone.items():
        torch.testing.assert_close(together[key], tensor, atol=1e-5, rtol=1e-4)


def steps(way: str, world: World) -> dict[str, Tensor]:
    """The weights after three steps."""
    from genai_cli.config import OptimizerConfig
    from genai_cli.engine.batches import Batches

    config, _, model, _ = adapted(way)
    batches = Batches(tiny_split(model.spec), seed=0, batch_size=8, rank=world.rank, world_size=world.size)
    sgd = OptimizerConfig(name="sgd", lr=0.1)
    step = OptimizerStep(model, batches, config.train, sgd, seed=0, total_steps=3, world=world, device=CPU)
    for number in range(3):
        step.run(number)
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gpt", "text"), ("vae", "grey 28"), ("pixelcnn", "grey 28"), ("realnvp", "points"), ("char_rnn", "text")],
)
def test_merged_equals_unmerged(name, kind):
    _, _, model, _ = adapted("lora", name, kind)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(".b"):
                parameter.normal_(std=0.1)
    model.eval()
    before, names = model.loss(batch_of(model.spec))[0], set(build(tiny_config(name, kind), SPECS[kind]).state_dict())
    merge_adapters(model)
    torch.testing.assert_close(model.loss(batch_of(model.spec))[0], before, atol=1e-5, rtol=1e-5)
    assert set(model.state_dict()) == names


@pytest.mark.parametrize(("name", "kind", "option"), [("char_rnn", "text", "cell"), ("roll_net", "rolls", "reader")])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_matrix_of_a_recurrent_layer_is_adapted(name, kind, option, cell, tmp_path):
    """Each adapter learns, the weights keep their bits, and what was learned is there when they are merged."""
    config = dataclasses.replace(tiny_config(name, kind), init="elsewhere", adapter=LORA)
    config = dataclasses.replace(config, model={**config.model, option: cell})
    base, model = base_of(config, SPECS[kind]), build(config, SPECS[kind])
    adaptation = runs.adapt(model, config, base)
    split = tiny_split(model.spec)
    trainer = Trainer(model, split, split, config, folder=tmp_path, world=World(), device=CPU, adaptation=adaptation)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trainer.run(Signals())
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    depth = config.model["depth"]
    recurrent = {key for key in changed if "parametrizations.weight_" in key}
    assert len(recurrent) == 2 * 2 * depth  # of input and state, A and B
    assert all(key.endswith((".a", ".b")) for key in changed)
    model.eval()
    expected = model.loss(batch_of(model.spec))[0]
    merge_adapters(model)
    assert set(model.state_dict()) == set(base.model)
    torch.testing.assert_close(model.loss(batch_of(model.spec))[0], expected, atol=1e-5, rtol=1e-5)
    model.load_state_dict(base.model)
    assert not torch.allclose(model.loss(batch_of(model.spec))[0], expected, atol=1e-5)


# -- the command ---------------------------------------------------------------------------------------------------

SMALL = [
    "dataset=text", "dataset.length=16", "dataset.tokenizer=byte", "train.steps=300", "train.batch_size=16",
    "train.sample_every=null", "train.evaluate_every=null", "train.save_every=null", "device=cpu", "logger=none",
    "optimizer.warmup_steps=0",
]  # fmt: skip
TINY = ["model.width=16", "model.depth=1", "model.heads=2"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """A base that knows one language, and a text in another."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "old.txt").write_text("the cat sat on the mat\n" * 100)
    (folder / "new.txt").write_text("ein hund lief in den wald\n" * 100)
    words = [f"dataset.path={folder / 'old.txt'}", f"run.dir={folder / 'base'}"]
    assert run(["train", "model=gpt", *TINY, *SMALL, *words]) == 0
    return folder


def test_on_another_text_the_adapter_beats_no_adaptation(texts, capsys):
    words = ["train", f"init={texts / 'base'}", *SMALL, f"dataset.path={texts / 'new.txt'}", "adapter=lora"]
    assert run([*words, "adapter.rank=4", f"run.dir={texts / 'lora'}"]) == 0
    nll = {name: nll_of(texts / name, texts / "lora") for name in ("base", "lora")}
    assert nll["lora"] < nll["base"] - 1
    saved = load(texts / "lora" / "checkpoints", "last")
    assert all(".parametrizations.weight." in name for name in saved.model)

    # The run is whole without the other: it holds its weights, and goes on, and samples, when that is gone.
    before = samples_of(texts / "lora")
    shutil.move(texts / "base", texts / "moved")
    assert torch.equal(samples_of(texts / "lora"), before)
    assert run(["train", f"run={texts / 'lora'}", "train.steps=301"]) == 0
    shutil.move(texts / "moved", texts / "base")


def nll_of(folder: Path, data: Path) -> float:
    """Nats per token that the model of `folder` gives to the test split of the run `data`."""
    config = schema.read_run_config(folder)
    trained = runs.load_trained(folder, config, checkpoint="last", weights="auto", device=CPU)
    split = runs.build_dataset(schema.read_run_config(data), trained.spec).load("test")
    return held_out_figures(trained.model, split, seed=0, batch_size=64, device=CPU)["nll"].mean


def samples_of(folder: Path) -> Tensor:
    config = schema.read_run_config(folder)
    trained = runs.load_trained(folder, config, checkpoint="last", weights="auto", device=CPU)
    return draw(trained.model, 2, seed=0, batch_size=2, device=CPU)


def test_what_does_not_fit_is_refused_in_one_sentence(texts, tmp_path, capsys):
    def refused(*words: str, code: int = 2) -> str:
        new = [f"dataset.path={texts / 'new.txt'}", f"run.dir={tmp_path / 'run'}"]
        assert run(["train", *SMALL, *new, *words]) == code
        return capsys.readouterr().err

    base = f"init={texts / 'base'}"
    assert "is of model=gpt, not model=char_rnn" in refused(base, "model=char_rnn")
    assert "model.width (16 there, 128 here)" in refused(base, "model=gpt")
    assert "model.width is 16 there and 32 here" in refused(base, "model.width=32")
    assert "'transformer.block.0' matches nothing; did you mean transformer.blocks.0?" in refused(
        base, "freeze=[transformer.block.0]"
    )
    assert "leaves nothing of model to train" in refused(base, "freeze=['*']")
    assert "leave freeze out" in refused(base, "freeze=[embedding]", "adapter=lora")
    assert "needs init=RUN" in refused("model=gpt", "adapter=lora")
    assert "needs init=RUN" in refused("model=gpt", "freeze=[embedding]")
    assert "have no effect with adapter=none" in refused(base, "adapter.rank=4")
    assert "init=nowhere does not exist" in refused("init=nowhere")
    broken = tmp_path / "broken"
    shutil.copytree(texts / "base", broken)
    (next((broken / "checkpoints").glob("step-*")) / "model.safetensors").write_bytes(b"")
    assert f"no valid checkpoint in {broken}" in refused(f"init={broken}", code=6)
    assert not (tmp_path / "run").exists()


def test_the_tokenizer_is_that_of_the_base():
    def corpus(text: str, tokenizer: str = "char") -> Corpus:
        return Corpus(text.encode(), source="it", tokenizer=tokenizer, length=4, validation=0.1, test=0.1)

    known = CharTokenizer("abcdef")
    smaller = corpus("abc" * 20)
    smaller.adopt(known)
    assert smaller.spec.vocabulary_size == 6 and torch.equal(smaller.tokens[:3], known.encode("abc").to(torch.uint8))
    with pytest.raises(DataError, match="2 characters that are not in the vocabulary of init, such as 'xé'"):
        corpus("abxé" * 20).adopt(known)
    poem = corpus("床前明月光" * 20)
    poem.adopt(ByteTokenizer())
    assert ByteTokenizer().decode(poem.tokens) == "床前明月光" * 20
