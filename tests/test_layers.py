"""Who may import whom (docs/design.md), read from the syntax trees: nothing here is imported."""

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "genai_cli"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Of our own modules, what those of a folder may import. "data" stands for data and all below it; every module may
# import the leaves.
LEAVES = ["__init__", "errors", "rules"]
MAY_IMPORT = {
    "engine": ["engine", "models.base", "data.base", "media", "metrics", "nn.random", "nn.paths", "config", "doctor"],
    "doctor": ["doctor", "data.base", "nn.random", "config"],
    "report": ["report", "data.base", "data.tokenizers", "doctor", "media"],
    "models": ["models.base", "data.base", "data.tokenizers", "nn", "samplers"],
    "data": ["data", "media", "nn.random"],
    "media": ["media", "data.base", "data.tokenizers"],
    "metrics": ["metrics", "data.base", "data.smiles_tokens", "nn.random"],
    "samplers": ["samplers", "nn"],
    "nn": ["nn", "data.base"],
}
SPEAK_HYDRA = ["cli", "compose", "overrides", "commands.sweep"]
# What runs before a command is known to be right; the rest of commands/ and runs.py build models.
WITHOUT_TORCH = [name for name in MODULES if "." not in name and name != "runs" and not (PACKAGE / name).is_dir()]
WITHOUT_TORCH += ["commands.help", "commands.list", "commands.sweep"]


def imports(name: str, *, at_module_level: bool = False) -> set[str]:
    """Every module that one of ours imports: "torch.nn", and our own as "genai_cli.data.base"."""
    tree = syntax_tree(name)
    found = set()
    for node in module_level(tree) if at_module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            is_ours = {path.removeprefix("genai_cli.") in MODULES for path in inner}
            found |= inner if is_ours == {True} else {node.module or ""}
    return found


@functools.cache
def syntax_tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def module_level(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from module_level(child)


def own(found: Iterable[str]) -> set[str]:
    """Our own modules among `found`, without the package's name."""
    return {name.removeprefix("genai_cli.") for name in found if name.startswith("genai_cli.")}


def lies_in(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_its_layer_and_those_below(folder):
    members = [name for name in MODULES if lies_in(name, [folder])]
    wrong = {
        f"{name} imports {other}"
        for name in members
        for other in own(imports(name))
        if not lies_in(other, [*MAY_IMPORT[folder], *LEAVES])
    }
    assert members
    assert not wrong


def test_only_the_command_line_speaks_hydra():
    speakers = {name for name in MODULES if {"hydra", "omegaconf"} & {path.split(".")[0] for path in imports(name)}}
    assert speakers <= set(SPEAK_HYDRA)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_importing_it_imports_no_torch(name):
    seen, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        found = imports(current, at_module_level=True)
        heavy = {path for path in found if path.split(".")[0] in ("torch", "torchvision", "numpy", "tensorboard")}
        assert not heavy, f"{name} imports {heavy}, by way of {current}"
        waiting += [other for other in own(found) if other in MODULES]


def test_a_class_is_abstract_or_final():
    abstract, derived = {"GenaiError"}, {}
    for name in MODULES:
        for node in ast.walk(syntax_tree(name)):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).split("[")[0].rpartition(".")[2] for base in node.bases]
                derived[node.name] = bases
                if {"ABC", "Protocol"} & set(bases):
                    abstract.add(node.name)
    concrete = derived.keys() - abstract
    wrong = {child: base for child, bases in derived.items() for base in bases if base in concrete}
    assert not wrong


def test_no_file_names_a_path_of_one_machine():
    path_of_one_machine = re.compile(r"(?<![\w.~/}])/(home|root|work|opt|mnt|tmp|Users)/\w")
    folders = ["genai_cli", "conf", "tests", "docs", "benchmarks", ".ci"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", "outputs/README.md")]
    wrong = []
    for path in files:
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".lock", ".json", ".csv", ""} and path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if path_of_one_machine.search(line) and "path_of_one_machine" not in line:
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not wrong
