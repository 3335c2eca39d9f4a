"""The wheel carries all that a command needs, and works where there is no checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import genai_cli

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built by the environment's own hatchling: no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_wheel_holds_the_package_the_yaml_files_and_the_data(wheel):
    sources = {f"genai_cli/{path}": ROOT / "genai_cli" / path for path in files_below(ROOT / "genai_cli")}
    sources |= {f"genai_cli/conf/{path}": ROOT / "conf" / path for path in files_below(ROOT / "conf")}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert inside == set(sources)
        assert all(archive.read(name) == path.read_bytes() for name, path in sources.items())
    assert "genai_cli/data/embedded/mnist/t10k-images.xz" in inside
    assert "genai_cli/conf/model/gan.yaml" in inside


def test_wheel_states_version_licence_and_command(wheel):
    assert wheel.name == f"genai_cli-{genai_cli.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        info = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert "genai = genai_cli.cli:main" in info["entry_points.txt"]
    assert "License-Expression: Apache-2.0" in info["METADATA"]
    assert "Apache License" in info["LICENSE"]


@pytest.fixture(scope="module")
def genai(wheel, tmp_path_factory):
    """The installed command, in an environment of its own, which borrows this one's torch but not this checkout."""
    bin_folder = install(wheel, tmp_path_factory.mktemp("environment"))

    def run(*words: str, folder: Path) -> str:
        command = [str(bin_folder / "genai"), *words]
        finished = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


def test_installed_wheel_composes_in_another_directory(genai, tmp_path):
    assert genai("--version", folder=tmp_path) == f"genai {genai_cli.__version__}\n"
    assert "gan" in genai("list", "models", folder=tmp_path)
    assert "toy2d" in genai("list", "datasets", folder=tmp_path)
    assert "  name: mnist" in genai("train", "model=gan", "dataset=mnist", "--cfg", "job", folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_installed_wheel_trains_and_samples_in_another_directory(genai, tmp_path):
    small = ["dataset.size=64", "train.steps=3", "train.sample_every=3", "train.num_samples=4", "device=cpu"]
    trained = genai("train", "model=gan", "dataset=toy2d", *small, folder=tmp_path)
    assert "finished at step 3 of 3" in trained
    genai("sample", "run=latest", "num_samples=2", "device=cpu", folder=tmp_path)
    (run,) = tmp_path.glob("outputs/*/*")
    assert (run / "samples" / "step-00000003.png").is_file()
    assert list(run.glob("samples/*/samples.csv"))
    assert list(run.glob("tensorboard/*"))


def test_the_lock_satisfies_the_project_and_names_no_address(project):
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
        locked.setdefault(name, []).append(version)
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    for requirement in map(Requirement, wanted):
        versions = locked.get(requirement.name, [])
        assert versions, f"{requirement.name} is not in requirements.lock: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: make lock"
    assert "://" not in text
    assert not re.findall(r"^[\w.-]+==[^\\]*$", text, re.MULTILINE), "entries without a hash"


def test_every_target_of_the_makefile_is_described():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    assert set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)) == phony


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def install(wheel: Path, folder: Path) -> Path:
    """The bin/ of a new environment with the wheel alone; other packages are looked up in that of the tests."""
    venv.create(folder, with_pip=True)
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile"]
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", *options, str(wheel)]
    subprocess.run(command, check=True, env=environment())
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder, but does not read that folder's own .pth files, so that an editable install
    # of this checkout there stays out of sight.
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def environment() -> dict[str, str]:
    """The caller's variables, without those that would lead Python back to the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GENAI", "COV_"))}
