"""Agreement with the class asked for is measured of models that were told classes, and of no other."""

from types import SimpleNamespace

import pytest
import torch

from genai_cli.commands.measure_samples import _asked
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Spec
from genai_cli.models.made import MADE
from genai_cli.models.meanflow import MeanFlow

DIGITS = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("a", "b", "c"))


@pytest.mark.parametrize(
    ("model", "told", "not_told"),
    [(MeanFlow, {"condition": "label"}, {"condition": None}), (MADE, {"conditional": True}, {"conditional": False})],
)
def test_classes_are_asked_for_where_the_model_was_told_them(model, told, not_told):
    def asked(options):
        trained = SimpleNamespace(
            spec=DIGITS,
            model=model(DIGITS, **model.tiny, **options),
            config=SimpleNamespace(model={"name": "it", **options}),
        )
        return _asked(EvaluateConfig(num_samples=5), trained, None)

    assert torch.equal(asked(told), torch.tensor([0, 1, 2, 0, 1]))
    assert asked(not_told) is None
