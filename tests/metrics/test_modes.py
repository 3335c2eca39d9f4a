"""Histograms of modes: the divergence, its floor, and cells where there are no classes."""

import math

import pytest
import torch
from scipy.stats import entropy

from genai_cli.metrics.modes import (
    assign,
    divergence_floor,
    divergence_interval,
    histogram,
    histogram_divergence,
    partition,
)


def test_stacked_mnist_floor_is_0019_on_uniform_labels():
    floor = divergence_floor(26_000, torch.ones(1000), seed=0)
    assert floor == pytest.approx(999 / (2 * 26_000), rel=0.03)
    assert 0.019 <= round(floor, 3) <= 0.024


def test_divergence_equals_scipys():
    generator = torch.Generator().manual_seed(0)
    samples, data = (torch.randint(1, 50, (20,), generator=generator) for _ in range(2))
    samples[3] = 0
    assert histogram_divergence(samples, data) == pytest.approx(entropy(samples.numpy(), data.numpy()), rel=1e-12)
    assert histogram_divergence(data, data) == 0


def test_one_lost_mode_of_ten_costs_log_ten_ninths():
    samples = torch.tensor([0] + [100] * 9)
    assert histogram_divergence(samples, torch.ones(10)) == pytest.approx(math.log(10 / 9), rel=1e-9)


def test_samples_of_a_mode_that_the_data_lack_are_infinitely_far():
    assert histogram_divergence(torch.tensor([1, 1]), torch.tensor([1, 0])) == math.inf


def test_interval_holds_the_value():
    labels = torch.randint(10, (500,), generator=torch.Generator().manual_seed(0)).clamp(max=8)
    value = histogram_divergence(histogram(labels, 10), torch.ones(10))
    low, high = divergence_interval(labels, torch.ones(10), seed=0)
    assert 0 < low < value < high < 0.5


def test_cells_find_separate_clusters():
    angle = torch.arange(800) % 8 * math.pi / 4
    data = 5 * torch.stack([angle.cos(), angle.sin()], 1)
    data += 0.1 * torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    centres = partition(data, 8, seed=0)
    assert histogram(assign(data, centres), 8).tolist() == [100] * 8
