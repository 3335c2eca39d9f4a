"""The Frechet distance: equal to scipy's matrix square root where that is real, and finite where it is not."""

import numpy
import pytest
import torch
from scipy.linalg import sqrtm

from genai_cli.metrics.frechet import frechet_distance, frechet_interval, moments, why_doubtful


def normals(count: int, dim: int, *, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return scale * torch.randn(count, dim, generator=generator, dtype=torch.float64) @ mixing


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    return frechet_distance(moments(x), moments(y))


def test_equals_the_formula_with_scipys_matrix_root():
    x, y = normals(500, 12, seed=0), normals(400, 12, seed=1, scale=1.3) + 0.5
    s1, s2 = numpy.cov(x.numpy().T), numpy.cov(y.numpy().T)
    root = sqrtm(s1 @ s2).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + numpy.trace(s1 + s2 - 2 * root)
    assert distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_of_diagonal_gaussians_is_the_closed_form():
    x = torch.tensor([[-1.0, 0], [1, 0], [0, -2], [0, 2]])  # covariance diag(2, 8) / 3
    y = 3 * x + 1
    expected = 2 + (3 - 1) ** 2 * (2 / 3 + 8 / 3)
    assert distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_of_a_set_to_itself_is_zero_and_grows_with_noise():
    x = normals(300, 20, seed=0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    distances = [distance(x, x + sigma * noise) for sigma in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert distances[0] == pytest.approx(0, abs=1e-9)
    assert distances == sorted(distances) and distances[1] > 0.01


@pytest.mark.parametrize("count", [2, 3, 10, 63])
def test_is_finite_and_flagged_with_fewer_samples_than_features(count):
    x, y = normals(count, 64, seed=0), normals(count, 64, seed=1)
    assert distance(x, x) == pytest.approx(0, abs=1e-6 * moments(x).covariance.trace().item())
    assert numpy.isfinite(distance(x, y)) and distance(x, y) > 0
    assert "too few" in why_doubtful(64, count, 10_000)


def test_of_fewer_samples_than_features_has_no_error_of_the_features_that_are_missing():
    """tr (S_1 S_2)^(1/2) is the sum of the singular values of the small matrix X Y^T, X and Y centred, over N - 1."""
    x, y = normals(20, 128, seed=0), normals(20, 128, seed=1)
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    overlap = torch.linalg.svdvals(centred_x @ centred_y.T).sum() / 19
    spread = (centred_x.square().sum() + centred_y.square().sum()) / 19
    expected = (x.mean(0) - y.mean(0)).square().sum() + spread - 2 * overlap
    assert distance(x, y) == pytest.approx(expected.item(), rel=1e-11)


@pytest.mark.parametrize(("count", "words"), [(64, "below full rank"), (65, "hardly of full rank"), (127, "hardly")])
def test_too_few_are_less_than_two_for_each_feature(count, words):
    assert words in why_doubtful(64, 10_000, count)
    assert why_doubtful(64, 10_000, 128) is None


def test_is_finite_where_all_samples_are_one():
    x = normals(50, 8, seed=0)
    collapsed = x.mean(0).expand(50, 8)
    assert distance(x, collapsed) == pytest.approx(moments(x).covariance.trace().item(), rel=1e-9)
    assert distance(collapsed, collapsed) == pytest.approx(0, abs=1e-30)


def test_is_symmetric_and_enough_samples_are_not_flagged():
    x, y = normals(200, 16, seed=0), 2 * normals(150, 16, seed=1)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9)
    assert why_doubtful(64, 2000, 10_000) is None


def test_interval_holds_the_value_and_has_the_width_of_repeated_draws():
    pairs = [(normals(400, 3, seed=2 * i), normals(400, 3, seed=2 * i + 1) + 1) for i in range(60)]
    values = torch.tensor([distance(*pair) for pair in pairs])
    low, high = frechet_interval(values[0].item(), *pairs[0], seed=0, num_replicates=200)
    assert low < values[0] < high
    assert high - low == pytest.approx(2 * 1.96 * values.std().item(), rel=0.35)
    assert (low, high) == frechet_interval(values[0].item(), *pairs[0], seed=0, num_replicates=200)
