"""Precision, recall, density, coverage: the numbers of the authors' own package, and of its documentation."""

from dataclasses import replace

import pytest
import torch
from prdc import compute_prdc

from genai_cli.metrics.bootstrap import share_interval
from genai_cli.metrics.comparison import Sets, manifolds, without_modes
from genai_cli.metrics.controls import blind_spots, void
from genai_cli.metrics.manifold import Manifold, compare_manifolds


def normals(count: int, dim: int, *, seed: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def figures(manifold: Manifold) -> dict[str, float]:
    return {name: column.mean().item() for name, column in vars(manifold).items()}


@pytest.mark.parametrize(("num_real", "num_fake", "dim"), [(300, 300, 16), (200, 350, 4), (1500, 1100, 8)])
def test_equals_prdc(num_real, num_fake, dim):
    real, fake = normals(num_real, dim, seed=0), 0.9 * normals(num_fake, dim, seed=1) + 0.2
    expected = compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    assert figures(compare_manifolds(real, fake)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_sets_of_10000_normals_of_1000_dimensions_give_the_published_figures():
    """Those of the example of prdc. Its density, 1.056, is one draw of a number whose mean is 1: in so many dimensions
    a few hubs hold most of the samples, and draws of 700 to 1,400 normals have a standard deviation of 0.1.
    """
    found = figures(compare_manifolds(normals(10_000, 1000, seed=0), normals(10_000, 1000, seed=1)))
    density = found.pop("density")
    assert found == pytest.approx({"precision": 0.477, "recall": 0.471, "coverage": 0.974}, abs=0.02)
    assert density == pytest.approx(1.0, abs=0.1)


def test_a_collapsed_generator_is_precise_and_recalls_nothing():
    real = normals(400, 3, seed=0)
    found = figures(compare_manifolds(real, real[:1].expand(400, 3)))
    assert found["precision"] == 1 and found["recall"] == 0 and found["coverage"] < 0.05


def test_copies_of_the_data_score_one():
    real = normals(200, 3, seed=0)
    found = figures(compare_manifolds(real, real))
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="more than 5 of each"):
        compare_manifolds(normals(5, 2, seed=0), normals(50, 2, seed=1))


def test_recall_sees_the_loss_of_half_of_the_modes_and_may_miss_that_of_one():
    """Balls grow across the gap of one mode of ten; its own control is therefore the loss of five."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * normals(10, 8, seed=1)
    real, control = (
        centres[torch.randint(10, (1000,), generator=generator)] + normals(1000, 8, seed=seed) for seed in (2, 3)
    )
    modes = torch.cdist(control, centres).argmin(1)
    sets = Sets(real, control, {"real": control, "one_mode_removed": without_modes(control, modes)},
                without_modes(control, modes, share=0.5))  # fmt: skip
    recall = {metric.name: metric for metric in manifolds(sets, {}, seed=0)}["recall"]
    assert recall.controls["half_removed"] < 0.7 < recall.controls["real"]
    assert void([recall])[1] == []
    blind = replace(recall, controls={**recall.controls, "half_removed": recall.controls["real"]})
    assert "half of their modes" in void([blind])[1][0]
    unseen = replace(recall, controls={**recall.controls, "one_mode_removed": recall.controls["real"]})
    assert void([unseen])[1] == [] and "one lost mode" in blind_spots([unseen])[0]


def test_intervals_of_shares_stay_within_0_and_1_and_are_never_empty():
    for share, expected in ((0.0, (0.0, 0.0370)), (1.0, (0.9630, 1.0)), (0.5, (0.4038, 0.5962))):
        column = (torch.arange(100) < 100 * share).double()
        assert share_interval(column) == pytest.approx(expected, abs=1e-4)  # Wilson 1927
    draws = torch.rand(2000, 50, generator=torch.Generator().manual_seed(0)) < 0.04
    holds = [low <= 0.04 <= high for low, high in (share_interval(draw) for draw in draws)]
    assert sum(holds) / len(holds) == pytest.approx(0.95, abs=0.03)
