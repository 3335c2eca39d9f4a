"""Points in the plane: where they lie is known, and splits are different draws."""

import pytest
import torch

from genai_cli.data.toy2d import NOISE, SHAPES, Toy2d


@pytest.mark.parametrize("shape", SHAPES)
def test_splits_are_seeded_and_share_no_point(shape):
    dataset = Toy2d(shape=shape, size=3000, held_out=500)
    splits = {name: dataset.load(name) for name in ("train", "validation", "test")}
    assert [len(split) for split in splits.values()] == [3000, 500, 500]
    rows = {name: set(map(tuple, split.tensors["points"].tolist())) for name, split in splits.items()}
    assert not rows["train"] & rows["validation"] | rows["train"] & rows["test"] | rows["validation"] & rows["test"]
    again = Toy2d(shape=shape, size=3000, held_out=500).load("train")
    assert again.content_hash() == splits["train"].content_hash()
    other = Toy2d(shape=shape, size=3000, held_out=500, seed=1).load("train")
    assert other.content_hash() != splits["train"].content_hash()


@pytest.mark.parametrize("shape", SHAPES)
def test_points_are_finite_centred_and_about_two_units_wide(shape):
    dataset = Toy2d(shape=shape, size=5000)
    points = dataset.load("train").fetch(torch.arange(5000))["points"]
    assert points.shape == (5000, *dataset.spec.shape) and points.dtype == torch.float32
    assert points.mean(0).abs().max() < 0.1
    assert points.abs().quantile(0.98) < 2.6 and 0.5 < points.std() < 1.6


def test_noiseless_points_lie_on_their_shapes():
    generator = torch.Generator().manual_seed(0)
    centres = SHAPES["eight_gaussians"](1000, generator)
    assert len(centres.round(decimals=4).unique(dim=0)) == 8
    radii = SHAPES["rings"](1000, generator).norm(dim=1)
    assert (2 * radii).sub((2 * radii).round()).abs().max() < 1e-5
    board = SHAPES["checkerboard"](1000, generator)
    assert ((board.floor().sum(1) % 2) == 0).all() and board.abs().max() <= 2


def test_noise_is_the_standard_deviation_around_the_shape():
    radii = Toy2d(shape="rings", noise=0.01, size=4000).load("train").tensors["points"].norm(dim=1)
    spread = (radii - (2 * radii).round() / 2).std()
    assert abs(spread - 0.01) < 0.001
    assert set(NOISE) == set(SHAPES)
