"""What a user types and what comes back: words, exit code, and no directory where nothing was done."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from genai_cli import cli, registry, schema
from genai_cli.checks import GROUPS, OPTIMIZER_KEYS
from genai_cli.completion import SCHEMAS
from genai_cli.config import conf_dir
from genai_cli.errors import ConfigError, ExitCode, StorageError
from genai_cli.overrides import Overrides
from genai_cli.registry import DATASET, MODEL, REQUIRED
from genai_cli.schema import flatten

PAIR = ["model=vae", "dataset=mnist", "train.steps=5"]
GROUP_CHOICES = [(group, name) for group in registry.GROUPS["train"] for name in registry.presets(group)]
PACKAGE_ROOT = str(Path(cli.__file__).parents[1])
PRESETS = [(kind, name) for kind in (MODEL, DATASET) for name in registry.presets(kind.word)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": PACKAGE_ROOT}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every command here runs in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def dispatched(monkeypatch):
    """The configurations that reached a command, whose work is left out."""
    seen = []

    def run(config, folder):
        seen.append((config, folder))
        return ExitCode.DONE

    monkeypatch.setattr(cli, "import_module", lambda name: SimpleNamespace(run=run))
    return seen


@pytest.fixture
def genai(capsys, empty_folder):
    """Run `genai ...` in this process: exit code, output, lines of problems. A refusal leaves nothing behind."""

    def run(*argv):
        before = set(Path.cwd().rglob("*"))
        code = cli.run(list(argv))
        captured = capsys.readouterr()
        if code == ExitCode.CONFIGURATION:
            assert set(Path.cwd().rglob("*")) == before
            assert "Traceback" not in captured.err and all(
                line.startswith("genai: ") for line in captured.err.splitlines()
            )
        return code, captured.out, captured.err

    return run


def spawn(*argv, program=("-m", "genai_cli")):
    """Run `genai ...` in a process of its own."""
    words = [sys.executable, *program, *argv]
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)


def typo_of(key, typo):
    group, _, last = key.partition(".")
    return f"{group}.{typo(last)}"


def doubled(name):
    return name + name[-1]


def without_a_middle_letter(name):
    return name[: len(name) // 2] + name[len(name) // 2 + 1 :]


# Typos


@pytest.mark.parametrize("typo", [doubled, without_a_middle_letter])
@pytest.mark.parametrize(("group", "name"), GROUP_CHOICES)
def test_a_typo_in_a_choice_is_answered_with_the_nearest_name(group, name, typo):
    if len(name) < 3 or (group, typo(name)) in GROUP_CHOICES:  # `made` without a letter is another model, `mae`
        typo = doubled
    problems = Overrides([f"{group}={typo(name)}"]).problems
    assert problems == [f"{group}={typo(name)} is no choice of {group}; did you mean {group}={name}?"]


def test_typos_in_all_groups_are_answered_together(genai):
    names = {group: next(iter(registry.presets(group))) for group in registry.GROUPS["train"]}
    code, _, err = genai("train", *(f"{group}={doubled(name)}" for group, name in names.items()))
    assert code == ExitCode.CONFIGURATION
    for group, name in names.items():
        assert f"{group}={doubled(name)} is no choice of {group}; did you mean {group}={name}?" in err


@pytest.mark.parametrize("typo", [doubled, without_a_middle_letter])
def test_typos_in_every_key_are_answered_together_each_with_its_name(genai, typo):
    keys = [f"{group}.{key}" for group, kind in GROUPS.items() for key in kind.__dataclass_fields__ if len(key) > 2]
    code, _, err = genai("train", *PAIR, *(f"{typo_of(key, typo)}=1" for key in keys))
    assert code == ExitCode.CONFIGURATION
    for key in keys:
        assert f"{typo_of(key, typo)} is no key of {key.partition('.')[0]}; did you mean {key}?" in err


@pytest.mark.parametrize(("kind", "choice"), PRESETS)
def test_typos_in_every_option_of_every_model_and_data_set(genai, kind, choice):
    name = registry.named_by(registry.presets(kind.word)[choice], kind)
    options = [option for option in registry.define(kind, name).options if len(option) > 2]
    words = [word for word in PAIR if not word.startswith(f"{kind.word}=")] + [f"{kind.word}={choice}"]
    code, _, err = genai("train", *words, *(f"{kind.word}.{doubled(key)}=1" for key in options))
    for key in options:
        assert code == ExitCode.CONFIGURATION
        assert f"{kind.word}.{doubled(key)} is no key of {kind.word}={choice}; did you mean {kind.word}.{key}?" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], "trian is no command of genai; did you mean train?"),
        (["train", "gan"], "gan is no key=value; did you mean model=gan?"),
        (["train", "model=vae"], "dataset is required: dataset=NAME, one of"),
        (["train", "modle=vae", "dataset=mnist"], "modle is no key here; did you mean model?"),
        (["train", *PAIR, "lr=1"], "lr is no key here; did you mean optimizer.lr?"),
        (["train", *PAIR, "optimizer.lr=[1"], "cannot be read; write key=value"),
        (["train", *PAIR, "seed=1,2"], "seed=1,2 gives several values; add -m"),
        (["compare", "runs=a,b"], "or write runs=[a,b] for a list, 'runs=\"a,b\"' for a text"),
        (["compare", "runs=a"], "runs=a must be a list such as [a]"),
        (["train", *PAIR, "optimizer.betas=0.5"], "optimizer.betas=0.5 must be a list such as [0.5,0.5]"),
        (["train", *PAIR, "~train.nothing"], "~train.nothing: there is no train.nothing to delete"),
        (["train", *PAIR, "device@optimizer=cpu"], "a group cannot be moved with @"),
        (["train", *PAIR, "model/part=x"], "model/part is no configuration group; did you mean model?"),
        (["train", *PAIR, "--cgf", "job"], "unrecognized arguments: --cgf"),
        (["train", *PAIR, "--cfg", "jbo"], "invalid choice"),
        (["train", *PAIR, "--config-dir", "nowhere"], "--config-dir nowhere is no folder"),
        (["train", *PAIR, "--resolve"], "--package and --resolve belong to --cfg"),
        (["train", *PAIR, "train.batch_size=${train.nothing}"], "a reference cannot be resolved"),
        (["train", "run=nowhere"], "run=nowhere does not exist; there is no run in outputs yet"),
        (["train", "run=latest"], "run=latest: there is no run directory in outputs"),
        (["sample"], "run is required: run=DIR or run=latest; there is no run in outputs yet"),
        (["evaluate", "split=tset"], "split=tset must be one of validation, test; did you mean test?"),
        (["sample", "device=cdua"], "device=cdua is no choice of device; did you mean device=cuda?"),
        (["sample", "model=vae"], "model is no key of genai sample"),
        (["train", "model", "=", "gan"], "a space beside = parts a key from its value; write model=gan"),
        (["train", "model", "gan", "dataset=mnist"], "model is no key=value; did you mean model=gan?"),
        (["train", *PAIR, "train.steps", "10"], "train.steps is no key=value; did you mean train.steps=10?"),
        (["train", *PAIR, "dataset.path=my", "photos"], "with a space in it is quoted: 'dataset.path=my photos'"),
        (["train", *PAIR, "--steps", "10"], "unrecognized arguments: --steps 10; options are written key=value"),
        (["train", "model=[gan,vae]", "dataset=mnist"], "is no choice of model; for one job of each, -m model=gan,vae"),
        (["sample", "latest"], "latest is no key=value; did you mean run=latest?"),
        (["list"], "genai list what? There is models, datasets"),
        (["list", "modles"], "modles cannot be listed; did you mean models?"),
    ],
)
def test_usage_errors_are_one_sentence_each(genai, argv, words):
    code, _, err = genai(*argv)
    assert (code, words in err) == (ExitCode.CONFIGURATION, True), err


@pytest.mark.parametrize(
    ("words", "reader"),
    [
        ("model=beta_vae dataset=mnist model.critic_width=64", "model.penalty=factor"),
        ("model=wae dataset=mnist model.critic_width=64", "model.divergence=adversarial"),
        ("model=vqvae dataset=mnist model.quantizer=fsq model.commitment=0.5", "model.quantizer=ema"),
        ("model=roll_net dataset=jsb_rolls model.nade_width=64", "model.output=nade"),
        ("model=roll_net dataset=jsb_rolls model.heads=3", "model.attention=1"),
        ("model=roll_net dataset=jsb_rolls model.reader=gru model.kernel=5", "model.reader=tcn"),
        ("model=stylegan2 dataset=mnist model.path_weight=0 model.path_every=4", "model.path_weight=1"),
        ("model=ddpm dataset=mnist model.label_dropout=0.2", "model.condition=label"),
        ("model=edm dataset=mnist model.label_dropout=0.2", "model.condition=label"),
        ("model=flow_matching dataset=mnist model.label_dropout=0.2", "model.condition=label"),
        ("model=gpt dataset=text dataset.vocabulary=512", "dataset.tokenizer=bpe"),
        ("model=gpt dataset=shakespeare dataset.vocabulary=512", "dataset.tokenizer=bpe"),
        ("model=gpt dataset=jsonl dataset.path=x dataset.vocabulary=512", "dataset.tokenizer=bpe"),
        ("model=gpt dataset=pairs dataset.vocabulary=512", "dataset.tokenizer=bpe"),
        ("model=gpt dataset=pairs dataset.digits=4", "dataset.task=addition"),
        ("model=gpt dataset=formal dataset.digits=4", "dataset.language=arithmetic"),
        ("model=pix2pix dataset=edges dataset.image_size=32", "dataset.of=folder dataset.path=x"),
        ("model=pix2pix dataset=grey dataset.threshold=100", "dataset.source=edges"),
    ],
)
def test_an_option_that_nothing_reads_is_refused_with_what_would(genai, dispatched, words, reader):
    key, belongs_to = words.split()[-1].partition("=")[0], reader.partition("=")[0]
    code, _, err = genai("train", *words.split())
    assert (code, dispatched) == (ExitCode.CONFIGURATION, [])
    assert f"{key.partition('.')[2]} belongs to {belongs_to.partition('.')[2]}" in err
    assert genai("train", *words.split(), *reader.split())[0] == ExitCode.DONE


def test_latent_diffusion_is_not_of_pixels(genai, dispatched):
    code, _, err = genai("train", "model=ldm", "dataset=mnist")
    assert code == ExitCode.CONFIGURATION and "model=ldm learns latents, but dataset=mnist is image" in err
    assert "model=ldm with dataset=latents" in err and "ldm" not in err.partition("dataset=mnist with model=")[2]
    assert genai("train", "model=ldm", "dataset=latents", "dataset.run=x")[0] == ExitCode.DONE
    (config, _), *_ = dispatched
    assert config.model["name"] == "ddpm" and "modalities" not in config.model
    code, _, err = genai("train", "model=ldm", "dataset=mnist", "model.modalities=[pixels]")
    assert code == ExitCode.CONFIGURATION and "model.modalities=[pixels] must be one of image, points" in err


def test_all_problems_of_groups_keys_and_values_come_at_once(genai):
    wrong = ["model=vaee", "device=cpuu", "train.lr=1", "optimizer.lr=abc", "seed=-1"]
    code, _, err = genai("train", "dataset=mnist", *wrong)
    assert (code, len(err.splitlines())) == (ExitCode.CONFIGURATION, 5), err


def test_the_same_problems_are_told_when_the_configuration_is_only_shown(genai):
    assert genai("train", *PAIR, "model.latent_dim=abc", "--cfg", "job")[0] == ExitCode.CONFIGURATION


@pytest.mark.parametrize("argv", [["train", "model=gna"], ["train", *PAIR, "optimizer.lr=abc"], ["trian"], ["sample"]])
def test_a_usage_error_imports_no_torch_and_exits_2(argv):
    done = spawn("-c", f"{IMPORT_CLI}\nsys.exit(cli.run({argv!r}) + 100 * ('torch' in sys.modules))", program=())
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr


IMPORT_CLI = "import sys; from genai_cli import cli"


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["train", "--help", "model=dcgan"], ["list", "models"], []]
)
def test_help_and_lists_import_neither_torch_nor_hydra(argv):
    program = f"{IMPORT_CLI}\ncli.run({argv!r})\nassert not {{'torch', 'hydra', 'omegaconf'}} & set(sys.modules)"
    done = spawn("-c", program, program=())
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


# What is composed


@pytest.mark.parametrize("order", [1, -1])
def test_flags_and_overrides_come_in_any_order(genai, order):
    code, out, _ = genai("train", *[*PAIR, "--cfg=job", "seed=7"][::order])
    assert (code, yaml.safe_load(out)["seed"]) == (ExitCode.DONE, 7)


def test_the_configuration_shown_is_the_one_composed_and_package_and_resolve_work(genai):
    _, out, _ = genai("train", *PAIR, "train.save_every=${train.steps}", "--cfg", "job", "--package", "train")
    assert yaml.safe_load(out)["save_every"] == "${train.steps}"
    _, out, _ = genai("train", *PAIR, "train.save_every=${train.steps}", "--cfg", "job", "--resolve")
    assert yaml.safe_load(out)["train"]["save_every"] == 5


def test_the_shell_wins_over_the_model_and_an_unlisted_default_can_be_set(genai, dispatched):
    assert genai("train", *PAIR, "optimizer=sgd", "optimizer.momentum=0.9", "train.epochs=null")[0] == 0
    (config, folder), *_ = dispatched
    assert (config.optimizer.name, config.optimizer.momentum, config.train.steps, folder) == ("sgd", 0.9, 5, None)
    assert config.run.name == "vae_mnist"


def test_training_goes_on_when_its_reader_has_seen_enough(tmp_path):
    """As in `genai train ... | head -1`."""
    words = ["model=gan", "dataset=toy2d", "dataset.size=20", "dataset.held_out=5", "model.width=4", "train.steps=40",
             "train.log_every=1", "train.sample_every=null", "logger=none", "device=cpu", "run.dir=run"]  # fmt: skip
    command = [sys.executable, "-m", "genai_cli", "train", *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, **streams) as child:
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == ExitCode.DONE
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000040"]


def test_nothing_is_left_in_the_folder_by_hydra(genai, dispatched, empty_folder):
    assert genai("train", *PAIR)[0] == 0 and dispatched
    assert not list(empty_folder.iterdir())


def companions(group, name):
    """The other choices that make a whole command with `group=name`."""
    if group == "experiment":
        return []
    if group not in ("model", "dataset"):
        return ["model=vae", "dataset=mnist"]
    kind, other = (MODEL, DATASET) if group == "model" else (DATASET, MODEL)
    for choice in sorted(registry.presets(other.word), key=lambda choice: len(required_of(other, choice))):
        pair = (name, choice) if kind is MODEL else (choice, name)
        model, dataset = definition_of(MODEL, pair[0]), definition_of(DATASET, pair[1])
        if model.fits(dataset):
            return [f"{other.word}={choice}", *required_of(kind, name), *required_of(other, choice)]
    raise AssertionError(f"{group}={name} fits no {other.word}")


def test_a_value_of_a_group_does_not_stand_for_its_choice(genai):
    code, _, err = genai("train", "model.name=gan", "dataset=toy2d")
    assert code == ExitCode.CONFIGURATION
    assert "model is required: model=NAME" in err


@pytest.mark.parametrize("folder", ["\u6625\u7720\u4e0d\u89c9\u6653", "caf\u00e9 noir"])
def test_letters_beyond_ascii_need_no_quotes(genai, dispatched, folder):
    code, _, err = genai("train", "model=gan", "dataset=toy2d", f"run.root={folder}")
    assert code == ExitCode.DONE, err
    (config, _), *_ = dispatched
    assert config.run.root == folder


def required_of(kind, name):
    """Something for every option of a preset that has no default: the path of a folder of images."""
    options = definition_of(kind, name).options.values()
    given = yaml.safe_load(registry.presets(kind.word)[name].path.read_text()).get(kind.word, {})
    return [f"{kind.word}.{key.name}=x" for key in options if key.default is REQUIRED and key.name not in given]


def definition_of(kind, choice):
    return registry.defined_by(registry.presets(kind.word)[choice], kind)


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda path: str(path.relative_to(conf_dir())))
def test_every_yaml_composes_and_every_key_of_it_reaches_the_schema(path, genai, dispatched):
    group, name = path.parent.name, path.stem
    if path.parent == conf_dir():
        keys = {key for key in yaml.safe_load(path.read_text()) if key != "defaults"}
        assert keys <= set(SCHEMAS[name].__dataclass_fields__)
        return
    code, _, err = genai("train", f"{group}={name}", *companions(group, name), "train.steps=5")
    if path.stem == "lora":  # all of it is understood, and it lacks what no test of words alone has
        assert err.strip() == "genai: adapter=lora needs init=RUN, the run whose weights it is added to"
        return
    assert code == ExitCode.DONE, err
    (config, _), *_ = dispatched
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    is_global = "@package _global_" in path.read_text(encoding="utf-8")
    reached = flatten(schema.plain(asdict(config)))
    for key, value in flatten(given if is_global else {group: given}).items():
        if key not in ("train.steps", "train.epochs", "defaults", "model.modalities") and not isinstance(value, dict):
            assert reached[key] == value, key


def test_a_users_folder_joins_by_config_dir(genai, dispatched, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    preset = tmp_path / "mine" / "model" / "wide.yaml"
    preset.write_text("# @package _global_\n# A wide VAE.\nmodel:\n  name: vae\n  width: 800\ntrain:\n  steps: 3\n")
    where = ["--config-dir", str(tmp_path / "mine")]
    assert genai("train", "model=wide", "dataset=mnist", *where)[0] == 0
    assert (dispatched[0][0].model["width"], dispatched[0][0].run.name) == (800, "wide_mnist")
    _, out, _ = genai("list", "models", *where)
    assert any(line.split()[0] == "wide" and str(tmp_path) in line for line in out.splitlines())


def test_info_and_cfg_hydra_are_hydras():
    assert "Defaults List" in spawn("train", *PAIR, "--info", "defaults").stdout
    assert "output_subdir" in spawn("train", *PAIR, "--cfg", "hydra").stdout


# What could execute or leak


@pytest.mark.parametrize(
    "payload",
    [
        "_target_=os.system",
        "model._target_=os.system",
        "+model._target_=os.system",
        "++dataset={_target_: os.system}",
        "model={name: vae, _target_: os.system}",
        "model.name=os.system",
        "model.name=torch.utils.collect_env.run",
        "dataset.name=../../etc/passwd",
        "plugins=[os]|model.name=os",
        "hydra.launcher._target_=os.system",
        "hydra.launcher={_target_: os.system}",
        "hydra.launcher.x={_target_: os.system}",
        "hydra.sweeper._target_=os.system",
        "+hydra.callbacks.x._target_=os.system",
        "hydra.job_logging.handlers.x={(): os.system}",
        "hydra/job_logging=default",
        "hydra.job.env_set.LD_PRELOAD=x",
        "hydra.searchpath=[pkg://os]",
        "hydra.run.dir=elsewhere",
        "hydra.verbose=true",
        "train.nonfinite=${oc.env:CANARY}",
        "run.root=${oc.env:CANARY,x}",
        "run.root=${hydra:runtime.cwd}",
        "run.root='${oc.env:CANARY}'",
        "run.root=${now:%Y}",
        "--experimental-rerun=x.pickle",
        "--config-path=/tmp",
    ],
)
@pytest.mark.parametrize("flags", [[], ["-m"], ["--cfg", "job"]], ids=["run", "sweep", "show"])
def test_a_payload_is_refused(genai, dispatched, monkeypatch, payload, flags):
    monkeypatch.setenv("CANARY", "secret-of-the-canary")
    code, out, err = genai("train", *PAIR, *payload.split("|"), *flags)
    assert code == ExitCode.CONFIGURATION and not dispatched
    assert "secret-of-the-canary" not in out + err


@pytest.mark.parametrize(
    "lines",
    [
        "hydra:\n  callbacks:\n    x:\n      _target_: os.system\n",
        "hydra:\n  job:\n    env_set:\n      A: b\n",
        "hydra:\n  job_logging:\n    handlers:\n      x:\n        (): os.system\n",
        "hydra:\n  sweeper:\n    _target_: os.system\n",
        "model:\n  name: vae\n  _target_: os.system\n",
        "run:\n  root: ${oc.env:CANARY}\n",
        "train: !!python/object/apply:os.system [id]\n",
        "train: [\n",
    ],
)
def test_a_payload_in_a_users_yaml_is_refused(genai, dispatched, monkeypatch, tmp_path, lines):
    monkeypatch.setenv("CANARY", "secret-of-the-canary")
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "bad.yaml").write_text(f"# @package _global_\n{lines}")
    code, out, err = genai("train", *PAIR, "experiment=bad", "--config-dir", str(tmp_path / "mine"))
    assert code == ExitCode.CONFIGURATION and not dispatched
    assert "secret-of-the-canary" not in out + err


SMALLEST = {"model": {"name": "vae"}, "dataset": {"name": "mnist"}, "train": {"steps": 5}}


@pytest.fixture
def a_run(empty_folder):
    """A run directory with nothing but a configuration, outputs/DAY/TIME_vae_mnist."""

    def make(text=None, name="10-00-00_vae_mnist"):
        folder = empty_folder / "outputs" / "2026-01-01" / name
        folder.mkdir(parents=True)
        record = schema.plain(asdict(schema.check_train(SMALLEST)))
        del record["run"]
        (folder / "config.yaml").write_text(yaml.safe_dump(record) if text is None else text)
        return folder

    return make


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "model: {name: os.system}\ndataset: {name: mnist}\n",
        "model: {name: vae, _target_: os.system}\ndataset: {name: mnist}\ntrain: {steps: 1}\n",
        "model: !!python/object/apply:os.system [id]\n",
        "_target_: os.system\nmodel: {name: vae}\ndataset: {name: mnist}\ntrain: {steps: 1}\n",
        "a: &a [1]\nb: [*a, *a]\nmodel: {name: vae}\n",
        "model: {name: vae}\nplugins: [[]]\ndataset: 3\n",
        "model:\n  name: {a: b}\n",
        "\0",
        "[" * 5000,
    ],
)
def test_a_hostile_run_directory_is_refused(genai, dispatched, a_run, text):
    folder = a_run(text)
    assert genai("train", f"run={folder}")[0] == ExitCode.CONFIGURATION
    code, _, _ = genai("sample", f"run={folder}", "steps=3")
    assert code == ExitCode.CONFIGURATION and not dispatched


# Going on, sampling, evaluating


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(genai, command):
    code, out, err = genai(command, "--help")
    assert (code, err) == (0, "") and out.startswith(f"genai {command}")


@pytest.mark.parametrize(("kind", "choice"), PRESETS)
def test_the_help_of_a_choice_lists_all_its_options(genai, kind, choice):
    code, out, _ = genai("train", "--help", f"{kind.word}={choice}")
    name = registry.named_by(registry.presets(kind.word)[choice], kind)
    listed = out.partition(f"Options of {kind.word}={choice}\n")[2]
    assert code == 0 and all(f"\n  {kind.word}.{key}=" in f"\n{listed}" for key in registry.define(kind, name).options)


@pytest.mark.parametrize(
    ("group", "choice"), [("optimizer", "adam"), ("device", "cuda"), ("adapter", "lora"), ("logger", "none")]
)
def test_the_help_of_a_shared_group_lists_all_that_the_choice_reads(genai, group, choice):
    listed = genai("train", "--help", "model=gan", f"{group}={choice}")[1].partition(f"Options of {group}={choice}\n")[
        2
    ]
    unread = {"name"} | {key for key, readers in OPTIMIZER_KEYS.items() if choice not in readers}
    for key in GROUPS[group].__dataclass_fields__:
        assert (f"\n  {group}.{key}=" in f"\n{listed}") == (key not in unread)


def test_the_help_of_a_run_lists_what_its_samples_take(genai, a_run):
    folder = a_run()
    assert "\n  noise=false\n" in genai("sample", "--help", f"run={folder}")[1]
    assert "\n  importance_samples=0\n" in genai("evaluate", "--help", "run=latest")[1]
    assert genai("train", "--help", "model=vaee")[::2] == (
        2,
        "genai: model=vaee is no choice of model; did you mean model=vae?\n",
    )
    assert genai("sample", "--help", "run=nowhere")[0] == ExitCode.CONFIGURATION


def test_a_run_goes_on_with_its_own_configuration_and_what_was_typed(genai, dispatched, a_run):
    a_run(name="09-00-00_older")
    folder = a_run()
    for run in (str(folder), "latest"):
        assert genai("train", f"run={run}", "train.steps=10", "device=cpu", "logger=none")[0] == 0
        config, resumed = dispatched.pop()
        assert (config.train.steps, config.device.name, config.logger.tensorboard) == (10, "cpu", False)
        assert resumed.resolve() == folder


def test_a_run_keeps_what_it_has_computed_with(genai, dispatched, a_run):
    code, _, err = genai("train", f"run={a_run()}", "optimizer.lr=1", "model.width=3", "train.steps=9")
    assert (code, len(err.splitlines())) == (ExitCode.CONFIGURATION, 2)
    assert "optimizer.lr: 0.001 in the run, 1 asked for" in err and not dispatched


@pytest.mark.parametrize("name", ["outputs/first", "mein Läuf 1", "a,b [c] = 'd' $e"])
def test_what_a_finished_run_says_to_type_next_can_be_typed(genai, dispatched, a_run, name):
    from genai_cli.overrides import shell_word

    folder = a_run().rename(Path.cwd() / Path(name).name)
    (word,) = shlex.split(shell_word("run", folder))
    assert genai("sample", word)[0] == 0
    assert dispatched[0][1] == folder


@pytest.mark.parametrize(("word", "kept"), [("model=gan", "model=vae"), ("dataset=toy2d", "dataset=mnist")])
def test_a_run_keeps_its_model_and_its_data(genai, dispatched, a_run, word, kept):
    code, _, err = genai("train", f"run={a_run()}", word)
    kind = word.partition("=")[0]
    assert (code, len(err.splitlines())) == (ExitCode.CONFIGURATION, 1) and not dispatched
    assert f"is of {kept} and keeps it; leave {kind} out to go on" in err


def test_one_run_is_not_compared_with_itself(genai, dispatched, a_run):
    folder = a_run()
    code, _, err = genai("compare", f"runs=[{folder},latest]")
    assert (code, len(err.splitlines())) == (ExitCode.CONFIGURATION, 1) and "which is among them already" in err


def test_an_explicit_directory_goes_on_with_the_same_configuration_only(genai, dispatched, a_run):
    folder = a_run()
    recorded = yaml.safe_load((folder / "config.yaml").read_text())
    same = [f"{key}={json.dumps(value)}" for key, value in flatten(recorded["train"], "train.").items()]
    assert genai("train", *PAIR, *same, f"run.dir={folder}")[0] == 0
    code, _, err = genai("train", *PAIR, *same, f"run.dir={folder}", "seed=3")
    assert (code, "seed: 0 in the run, 3 asked for" in err) == (ExitCode.CONFIGURATION, True)


def test_sample_takes_the_options_of_the_runs_model(genai, dispatched, a_run):
    text = yaml.safe_dump({**SMALLEST, "model": {"name": "gpt"}, "dataset": {"name": "shakespeare"}})
    folder = a_run(text)
    assert genai("sample", f"run={folder}", "temperature=0.5", "prompt='To be, or'", "num_samples=3")[0] == 0
    config, used = dispatched.pop()
    assert config.options == {"temperature": 0.5, "prompt": "To be, or"} and used.resolve() == folder
    code, _, err = genai("sample", f"run={folder}", "temprature=1", "top_k=0")
    assert code == ExitCode.CONFIGURATION
    assert "did you mean temperature?" in err and "top_k=0 must be at least 1 or null" in err


def test_a_run_without_its_key_is_answered_with_it(genai, a_run):
    run = a_run()
    for words in ([str(run)], ["run", str(run)]):
        code, _, err = genai("sample", *words)
        assert (code, f"did you mean run={run}?" in err) == (ExitCode.CONFIGURATION, True), err


DDPM = "model: {name: ddpm}\ndataset: {name: mnist}\ntrain: {steps: 1}\n"


def test_the_nearest_of_several_choices_ends_the_sentence(genai, a_run):
    code, _, err = genai("sample", f"run={a_run(DDPM)}", "solver=hune")
    assert code == ExitCode.CONFIGURATION
    assert "solver=hune must be one of ddpm, ddim, euler, heun, dpmpp_2m, unipc or null; did you mean heun?" in err


def test_models_are_named_as_they_can_be_chosen(genai, a_run):
    """`flow` is the file of realnvp, glow and nsf: no choice of model."""
    code, _, err = genai("sample", f"run={a_run()}", "temperature=1")
    assert code == ExitCode.CONFIGURATION
    named = re.search(r"temperature is no key .* it is one of model=([\w, ]+)", err)[1].partition(" and ")[0]
    assert set(named.split(", ")) <= set(registry.presets("model"))


def test_an_option_of_other_models_is_answered_with_them(genai, a_run):
    """And not with a key that happens to be spelt like it: prompt, and root."""
    code, _, err = genai("sample", f"run={a_run()}", "prompt=hello", "label=3")
    assert code == ExitCode.CONFIGURATION
    assert "prompt is no key of genai sample or of model=vae; it is one of model=bert, char_rnn, gpt" in err
    assert "label is no key of genai sample or of model=vae; it is one of model=biggan, cgan" in err


def test_a_missing_run_is_answered_with_the_newest_ones(genai, a_run):
    a_run()
    assert "10-00-00_vae_mnist" in genai("sample")[2]
    assert "10-00-00_vae_mnist" in genai("evaluate", "run=nowhere")[2]


def test_latest_finds_the_jobs_of_a_sweep(genai, dispatched, a_run):
    a_run()
    job = a_run(name="11-00-00_sweep/1_vae")
    assert genai("evaluate", "run=latest")[0] == 0
    assert dispatched[0][1].resolve() == job


# Exit codes


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("one", "two"), 2, ["genai: one", "genai: two"]),
        (StorageError("cannot be written"), 6, ["genai: cannot be written"]),
        (MemoryError(), 5, ["train.batch_size", "train.accumulate", "device.precision"]),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 5, ["train.batch_size"]),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 6, ["No space left on device (x)"]),
        (KeyboardInterrupt(), 130, ["genai: interrupted"]),
        (ZeroDivisionError("oops"), 1, ["Traceback", "please report it"]),
    ],
)
def test_what_ends_a_command_has_its_exit_code_and_words(genai, monkeypatch, error, code, words):
    def fail(config, folder):
        raise error

    monkeypatch.setattr(cli, "import_module", lambda name: SimpleNamespace(run=fail))
    result, _, err = genai("train", *PAIR)
    assert result == code
    assert all(word in err for word in words) and ("Traceback" in err) == (code == 1)


def test_of_several_processes_one_speaks(genai, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert genai("train", "model=nothing")[2] == ""


# Completion, lists


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("genai tr", {"train"}),
        ("genai train model=char", {"model=char_rnn"}),
        ("genai train device=c", {"device=cpu", "device=cuda"}),
        ("genai train model=gan loss", set()),
        ("genai train model=vae model.lat", {"model.latent_dim="}),
        ("genai train model=gan model.gen=", set()),
        ("genai train model=gan model.generator=", {"model.generator=deterministic", "model.generator=stochastic"}),
        ("genai train train.nonfinite=s", {"train.nonfinite=stop", "train.nonfinite=skip"}),
        ("genai train device.compile=", {"device.compile=true", "device.compile=false"}),
        ("genai sample weights=", {"weights=auto", "weights=ema", "weights=raw"}),
        ("genai train --cfg job trai", {"train."}),
        ("genai list mod", {"models"}),
    ],
)
def test_completion_knows_commands_choices_keys_and_values(genai, monkeypatch, line, offered):
    monkeypatch.setenv("COMP_LINE", line)
    code, out, _ = genai("-sc", "query=bash")
    assert (code, set(out.split())) == (0, offered)


def test_completion_knows_the_runs_and_what_their_samples_take(genai, monkeypatch, a_run):
    folder = a_run().relative_to(Path.cwd())
    for line, offered in [
        ("genai sample run=", {"run=latest", f"run={folder}"}),
        (f"genai sample run={folder} noi", {"noise="}),
        ("genai sample run=latest noise=", {"noise=true", "noise=false"}),
        ("genai evaluate run=latest imp", {"importance_samples="}),
        ("genai sample run=nowhere noi", set()),
    ]:
        monkeypatch.setenv("COMP_LINE", line)
        assert set(genai("-sc", "query=bash")[1].split()) == offered


@pytest.mark.parametrize("argv", [["-sc", "install=bash"], ["train", "-sc", "install=bash"]])
def test_the_completion_script_is_for_genai(genai, argv):
    assert genai(*argv)[1].rstrip().endswith("hydra_bash_completion genai")


def test_completion_works_in_a_real_bash(tmp_path):
    (tmp_path / "genai").write_text(f'#!/bin/sh\nexec {sys.executable} -m genai_cli "$@"\n')
    (tmp_path / "genai").chmod(0o755)
    script = (
        'eval "$(genai -sc install=bash)"; COMP_LINE="genai train model=g"; COMP_POINT=19; COMP_CWORD=2;'
        'hydra_bash_completion; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**ENVIRONMENT, "PATH": path})
    offered = [f"model={name}" for name in registry.presets("model") if name.startswith("g")]
    assert done.stdout.split() == offered, done.stderr


@pytest.mark.parametrize("kind", ["models", "datasets", "optimizers"])
def test_lists_name_every_preset_with_one_line(genai, kind):
    code, out, _ = genai("list", kind)
    rows = out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(registry.presets(kind.removesuffix("s")))
    assert code == 0 and all(row.count("  ") for row in rows) and "built in" not in out


def test_a_list_with_a_users_presets_says_whose_each_is(genai, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My own. `genai train model=mine`\nmodel:\n  name: gan\n")
    lines = genai("list", "models", "--config-dir", str(tmp_path))[1].splitlines()
    origins = {line.split()[0]: line.rpartition("  ")[2] for line in lines}
    assert (origins["model"], origins["mine"], origins["vae"]) == ("origin", str(tmp_path), "built in")


SWALLOWED = """
import os, signal, types
from genai_cli import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in the background

def import_module(name):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        [None for _ in range(1000)]  # somewhere within torch
    except KeyboardInterrupt:
        pass  # as torch does while it looks for numpy
    return types.SimpleNamespace(run=lambda config, folder: 0)

cli.import_module = import_module
cli.main(["train", "model=vae", "dataset=mnist"])
"""


def test_ctrl_c_while_torch_is_imported_is_not_lost():
    done = spawn("-c", SWALLOWED, program=())
    assert (done.returncode, done.stderr) == (130, "genai: interrupted\n")


def test_a_reader_that_stops_reading_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -c \"import time; from genai_cli import cli; time.sleep(0.3); cli.main(['--help'])\" | true;"
        " echo ${PIPESTATUS[0]}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("0", "")
