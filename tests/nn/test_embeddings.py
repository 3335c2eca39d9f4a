"""Facts about the embedding of time."""

import math

import pytest
import torch

from genai_cli.nn.embeddings import TimeEmbedding, fourier_features, sinusoidal_embedding


def test_sinusoids_have_geometric_periods():
    found = sinusoidal_embedding(torch.tensor([0, 3]), 6)
    frequencies = [1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    expected = [[f(3 * frequency) for frequency in frequencies] for f in (math.cos, math.sin)]
    torch.testing.assert_close(found[0], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    torch.testing.assert_close(found[1], torch.tensor(expected).flatten())


def test_all_of_a_thousand_timesteps_differ():
    points = sinusoidal_embedding(torch.arange(1001), 16)
    assert torch.cdist(points, points).add(torch.eye(1001) * 9).min() > 0.1


def test_embedding_is_exact_under_autocast():
    t = torch.tensor([999.0, 1000.0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sinusoidal_embedding(t, 8), sinusoidal_embedding(t, 8).float())
        assert not torch.equal(*sinusoidal_embedding(t, 8))
        assert TimeEmbedding(8, 12)(t).shape == (2, 12)


def test_odd_dimension_is_refused():
    with pytest.raises(ValueError, match="dim=5 must be even"):
        sinusoidal_embedding(torch.zeros(1), 5)


def test_fourier_features_have_periods_of_eight_four_and_two():
    x = torch.tensor([[0.5, -1.25]])
    found = fourier_features(x, 3)
    angles = [2 * math.pi * coordinate / period for coordinate in (0.5, -1.25) for period in (8, 4, 2)]
    expected = [0.5, -1.25, *map(math.sin, angles), *map(math.cos, angles)]
    torch.testing.assert_close(found, torch.tensor([expected]))
    for period in (8, 4, 2):
        features = slice(2 + {8: 0, 4: 1, 2: 2}[period], 8, 3)  # the sine of either coordinate
        torch.testing.assert_close(fourier_features(x + period, 3)[0, features], found[0, features])
