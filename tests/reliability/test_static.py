"""T26 and T37: no code of ours can run what a file holds, and importing it does nothing."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.harness import ROOT

FILES = sorted((ROOT / "genai_cli").rglob("*.py"))
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "os.system", "os.popen", "torch.load", "torch.hub.load", "yaml.unsafe_load",
    "yaml.full_load", "joblib.load", "marshal.loads", "shelve.open",
}  # fmt: skip
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
REVIEWED = {
    ("genai_cli/locate.py", "yaml.load"),  # with a SafeLoader that refuses aliases as well
    ("genai_cli/metrics/inception.py", "pickle"),  # for the name of its exception: weights_only raises it
}


def dangers(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name in FORBIDDEN_CALLS
                or name == "yaml.load"
                or name.endswith((".extractall", ".load_state_dict_from_url"))
            ):
                is_safe = name == "torch.load" and options.get("weights_only") == "True"
                if not is_safe:
                    yield name
            yield from (f"{key}=True" for key in ("shell", "allow_pickle") if options.get(key) == "True")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_can_run_what_a_file_holds(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    assert [danger for danger in dangers(path) if (place, danger) not in REVIEWED] == []


def test_the_gate_sees_what_it_should(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import pickle\ntorch.load(f)\ntorch.load(f, weights_only=True)\nsubprocess.run(x, shell=True)\n"
        "numpy.load(f, allow_pickle=True)\narchive.extractall()\nyaml.load(t, L)\neval(x)\n"
    )
    expected = [
        "pickle",
        "torch.load",
        "shell=True",
        "allow_pickle=True",
        ".extractall",
        "yaml.load",
        "eval",
    ]
    assert [danger.removeprefix("archive") for danger in dangers(bad)] == expected


AUDIT = """
import json, sys
seen = []
def hook(event, arguments):
    is_write = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.mkdir")) or is_write:
        seen.append([event, repr(arguments)])
sys.addaudithook(hook)
sys.dont_write_bytecode = True
from genai_cli import cli
code = cli.run(["--help"])
print()
print(json.dumps([code, seen]))
"""


def test_help_opens_no_socket_starts_no_process_and_writes_nothing() -> None:
    ended = subprocess.run([sys.executable, "-c", AUDIT], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(ended.stdout.splitlines()[-1]) == [0, []]
