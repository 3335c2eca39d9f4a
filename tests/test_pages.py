"""What README.md and docs say is true: the files that they tell to write work, their commands compose."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genai_cli.configure import configure
from genai_cli.overrides import Overrides, assign
from genai_cli.registry import MODEL, named_by
from genai_cli.registry import presets as presets_of
from genai_cli.schema import check_evaluate, check_sample

ROOT = Path(__file__).resolve().parents[1]
MODEL_PAGES = sorted((ROOT / "docs" / "models").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "docs" / "adding.md"]
FILE_WITH_CONTENT = re.compile(r"`((?:genai_cli|conf)/\w+/\w+\.\w+)`[^`]*```(?:python|yaml)\n(.*?)```", re.DOTALL)
COMPOSE_EACH_LINE = """\
import shlex, sys
from genai_cli.cli import run
failed = [line for line in sys.stdin.read().splitlines() if run([*shlex.split(line), "--cfg", "job"]) != 0]
sys.exit("cannot be composed: " + "; ".join(failed) if failed else 0)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the package, its YAML files and its tests, with the files that the pages say to add."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("genai_cli", "conf", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    for page in PAGES:
        files = FILE_WITH_CONTENT.findall(page.read_text(encoding="utf-8"))
        assert len(files) == 2, f"{page}: one Python file and one YAML"
        for name, content in files:
            assert not (folder / name).exists(), f"{page} tells to write {name}, which exists"
            (folder / name).write_text(content, encoding="utf-8")
    for line in command_lines("mkdir ", "printf "):
        subprocess.run(["bash", "-c", line], cwd=folder, check=True)
    return folder


def command_lines(*starts: str) -> list[str]:
    """The lines of the pages' code blocks that begin so, without the comment after them."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return [line.partition("  #")[0] for line in text.splitlines() if line.startswith(starts)]


def is_of_a_new_run(line: str) -> bool:
    """Whether it needs no run that is there."""
    return not any(word.startswith(("run=", "init=")) for word in shlex.split(line))


def without_sweep(line: str) -> str:
    """The first job of a sweep."""
    return re.sub(r"=([^\s,]+),\S+", r"=\1", line.replace(" -m ", " ")) if " -m " in line else line


def run_python(folder: Path, *words: str, text: str = "") -> str:
    finished = subprocess.run([sys.executable, *words], cwd=folder, input=text, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr
    return finished.stdout


def test_every_training_command_composes(checkout):
    lines = [without_sweep(line) for line in command_lines("genai train ") if is_of_a_new_run(line)]
    assert len(lines) >= 10
    words = [line.removeprefix("genai ").replace(" --cfg job", "") for line in lines]
    run_python(checkout, "-c", COMPOSE_EACH_LINE, text="\n".join(words))


@pytest.mark.parametrize("page", MODEL_PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_models_page_are_right(page):
    """They compose, and what samples and evaluation are asked for are options of the model trained before."""
    model = page.stem
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith(("genai train ", "genai sample ", "genai evaluate ")) or "model.teacher" in line:
            continue  # a teacher is a run that must be there
        _, command, *words = shlex.split(line, comments=True)
        overrides = Overrides(words, command=command)
        job = next(overrides.jobs())
        if command == "train":
            model = configure("train", job, overrides).config.model["name"]
        else:
            values = {}
            assign(values, job)
            (check_sample if command == "sample" else check_evaluate)(values, {"name": model})


def test_every_model_has_a_page_and_a_place_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    presets = {name for name, preset in presets_of("model").items() if named_by(preset, MODEL) == name}
    assert {page.stem for page in MODEL_PAGES} >= presets
    assert all(f"`{name}`" in readme for name in presets_of("model"))
    assert all(f"`{name}`" in readme for name in presets_of("dataset"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_model_to_add_passes_the_contract(checkout):
    printed = run_python(checkout, "-m", "pytest", "-q", "tests/models", "-k", "mixture")
    assert re.search(r"^\d\d+ passed", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_model_and_the_data_set_to_add_learn(checkout):
    rows = "".join(f"{i % 7},{i % 5}\n" for i in range(200))
    (checkout / "points.csv").write_text("x,y\n" + rows)
    words = ["dataset=table", "dataset.path=points.csv", "train.steps=3", "device=cpu"]
    printed = run_python(checkout, "-m", "genai_cli", "train", "model=mixture", *words)
    assert "finished at step 3 of 3" in printed
