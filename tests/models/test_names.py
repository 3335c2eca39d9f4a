"""A model's own parts bear no name of a method that every model has: one would hide the other."""

import ast
import re

from genai_cli.models.base import GenerativeModel
from tests.reliability.harness import ROOT

METHODS = {name for name, member in vars(GenerativeModel).items() if callable(member) and not name.startswith("__")}


def test_no_part_of_a_model_hides_a_method_or_is_hidden_by_it() -> None:
    wrong = [
        f"{path.name}: self.{name}"
        for path in sorted((ROOT / "genai_cli" / "models").glob("*.py"))
        for name in re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", ast.unparse(ast.parse(path.read_text())))
        if name in METHODS
    ]
    assert "train_step" in METHODS
    assert wrong == []
