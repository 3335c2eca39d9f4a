"""Facts about what a run that starts from another keeps, on modules made by hand; runs: tests/test_adaptation.py."""

import torch
from torch import nn

from genai_cli.engine.adaptation import Adaptation


def test_what_is_kept_is_kept_under_every_name_that_it_has():
    """As an embedding that is also the last layer's matrix."""
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["embedding"].weight
    adaptation = Adaptation(model, {"embedding.weight"})
    assert adaptation.learned().keys() == {"head.bias"}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {"head.bias"}
    kept = model["head"].weight.clone()
    adaptation.take_up({"head.bias": torch.ones(5)})
    assert torch.equal(model["head"].bias, torch.ones(5)) and torch.equal(model["head"].weight, kept)


def test_a_layer_whose_statistics_are_kept_uses_them_in_training():
    model = nn.ModuleDict({"old": nn.BatchNorm1d(2), "new": nn.BatchNorm1d(2)})
    kept = {"old.running_mean", "old.running_var", "old.num_batches_tracked"}
    Adaptation(model, kept).train()
    assert not model["old"].training and model["new"].training
