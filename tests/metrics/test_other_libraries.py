"""On the same features: the numbers of torch-fidelity and torchmetrics, which others report theirs by."""

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import _compute_fid

from genai_cli.metrics.frechet import frechet_distance, moments
from genai_cli.metrics.kernel import kernel_distance
from genai_cli.metrics.manifold import compare_manifolds


def features(count: int, *, seed: int) -> Tensor:
    """(N, 24) float64: correlated, rectified as features of a network are, and of another mean for each seed."""
    draw = torch.randn(count, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mixing = torch.randn(24, 24, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return (draw @ mixing + 0.4 * seed).relu()


REAL, FAKE = features(300, seed=1), features(260, seed=2)


def test_frechet_equals_torch_fidelity_and_torchmetrics():
    found = frechet_distance(moments(REAL), moments(FAKE))
    statistics = [fid_features_to_statistics(x) for x in (REAL, FAKE)]
    (theirs,) = fid_statistics_to_metric(*statistics, False).values()
    one, other = moments(REAL), moments(FAKE)
    others = _compute_fid(one.mean, one.covariance, other.mean, other.covariance).item()
    assert found == pytest.approx(theirs, rel=1e-9) and found == pytest.approx(others, rel=1e-6)


def test_kid_equals_torch_fidelity_on_one_subset_of_all():
    size = len(FAKE)
    words = {"kid_subsets": 1, "kid_subset_size": size, "kid_kernel": "poly", "kid_kernel_poly_degree": 3,
             "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1, "rng_seed": 0, "verbose": False}  # fmt: skip
    theirs = kid_features_to_metric(FAKE, REAL[:size], **words)["kernel_inception_distance_mean"]
    assert kernel_distance(REAL[:size], FAKE) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("neighbours", [3, 5])
def test_precision_and_recall_equal_torch_fidelitys(neighbours):
    words = {"prc_neighborhood": neighbours, "prc_batch_size": 100, "save_cpu_ram": False, "verbose": False}
    theirs = prc_features_to_metric(FAKE, REAL, **words)
    found = compare_manifolds(REAL, FAKE, neighbours=neighbours)
    assert found.precision.mean().item() == pytest.approx(theirs["precision"], abs=1e-6)
    assert found.recall.mean().item() == pytest.approx(theirs["recall"], abs=1e-6)
    assert 0.05 < theirs["recall"] < 0.999 and 0.05 < theirs["precision"] < 0.999
