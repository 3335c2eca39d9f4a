"""TimeGAN's sines: each feature is a sine of one frequency and phase, within what the protocol says."""

import math

import pytest
import torch

from genai_cli.data.sines import Sines


@pytest.mark.parametrize(("protocol", "fastest"), [("code", 0.1), ("paper", 2 * math.pi)])
def test_every_feature_is_a_sine_of_one_frequency(protocol, fastest):
    """x_(t-1) + x_(t+1) = 2 cos(eta) x_t, which no other sequence obeys."""
    x = 2 * Sines(protocol=protocol, size=200).load("train").fetch(torch.arange(200))["series"].double() - 1
    assert x.shape == (200, 24, 5)
    middle = x[:, 1:-1]
    cosine = ((x[:, :-2] + x[:, 2:]) * middle).sum(1) / (2 * middle.square().sum(1))  # (N, C), least squares
    torch.testing.assert_close(x[:, :-2] + x[:, 2:], 2 * cosine.unsqueeze(1) * middle, atol=2e-6, rtol=0)
    assert cosine.min() >= math.cos(min(fastest, math.pi)) - 1e-4


def test_the_protocol_of_the_code_begins_near_one_half_and_rises():
    x = Sines(size=100).load("train").fetch(torch.arange(100))["series"]
    assert (x[:, 0] >= 0.5).all() and (x[:, 0] <= (math.sin(0.1) + 1) / 2 + 1e-6).all()


def test_splits_differ_and_repeat():
    dataset = Sines(size=50, held_out=50)
    parts = {name: dataset.load(name).fetch(torch.arange(50))["series"] for name in ("train", "validation", "test")}
    assert torch.equal(Sines(size=50).load("train").fetch(torch.arange(50))["series"], parts["train"])
    assert not torch.equal(parts["train"], parts["test"]) and not torch.equal(parts["validation"], parts["test"])
    assert not torch.equal(Sines(size=50, seed=1).load("train").fetch(torch.arange(50))["series"], parts["train"])
