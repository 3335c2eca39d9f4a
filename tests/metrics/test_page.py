"""docs/METRICS.md: every self-test it names is a test, and every metric with a control is explained."""

import re
from pathlib import Path

from genai_cli.config import EvaluateConfig
from genai_cli.metrics.controls import ORDERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "METRICS.md").read_text(encoding="utf-8")


def test_every_self_test_that_the_page_names_is_a_test():
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= 10
    missing = [test for path, test in named if f"def {test}(" not in (ROOT / path).read_text(encoding="utf-8")]
    assert missing == []


def test_every_metric_that_its_controls_judge_is_explained():
    assert [name for name in ORDERS if f"`{name}`" not in PAGE] == []


def test_every_option_that_changes_a_number_is_explained():
    options = {"metrics", "extractor", "inception", "num_samples", "split", "seed", "text"}
    assert options <= EvaluateConfig.__dataclass_fields__.keys()
    assert [key for key in options if not re.search(rf"`{key}\b", PAGE)] == []
