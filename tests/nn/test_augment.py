"""Facts about augmentations: exact on known images, the same for one rank or two, and differentiable."""

import math

import pytest
import torch

from genai_cli.nn.augment import (
    AUGMENTATIONS,
    AdaptiveAugment,
    DiffAugment,
    change_colour,
    cut_out,
    jitter_colour,
    move_and_turn,
    translate,
)
from genai_cli.nn.random import BatchRandom

IMAGES = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5) + 1


def test_translation_moves_every_pixel():
    moved = translate(IMAGES, torch.tensor([[1, -2], [0, 3]]))
    expected = torch.zeros_like(IMAGES)
    expected[0, :, 1:, :3] = IMAGES[0, :, :3, 2:]
    expected[1, :, :, 3:] = IMAGES[1, :, :, :2]
    assert torch.equal(moved, expected)
    assert torch.equal(translate(IMAGES, torch.zeros(2, 2, dtype=torch.long)), IMAGES)


def test_cutout_clears_a_window_and_nothing_else():
    cut = cut_out(IMAGES, torch.tensor([[0, 0], [2, 3]]), (2, 2))
    expected = IMAGES.clone()
    expected[0, :, :1, :1] = 0  # half outside
    expected[1, :, 1:3, 2:4] = 0
    assert torch.equal(cut, expected)


def test_colour_is_moved_then_scaled_about_grey_then_about_the_mean():
    none = jitter_colour(IMAGES, torch.zeros(2, 3))
    torch.testing.assert_close(none, IMAGES)
    brighter = jitter_colour(IMAGES, torch.tensor([[0.5, 0.0, 0.0]] * 2))
    torch.testing.assert_close(brighter, IMAGES + 0.5)
    greyed = jitter_colour(IMAGES, torch.tensor([[0.0, -0.5, 0.0]] * 2))
    torch.testing.assert_close(greyed, IMAGES.mean(1, keepdim=True).expand_as(IMAGES))
    flatter = jitter_colour(IMAGES, torch.tensor([[0.0, 0.0, -0.5]] * 2))
    mean = IMAGES.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(flatter, mean + 0.5 * (IMAGES - mean))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_rows_draw_for_themselves_and_a_part_is_a_slice_of_the_whole(name):
    augment = AUGMENTATIONS[name]()
    if name == "ada":
        augment.p.fill_(0.8)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = augment(images, BatchRandom(3, stop=6))
    part = augment(images[2:5], BatchRandom(3, start=2, stop=5, total=6))
    torch.testing.assert_close(whole[2:5], part)
    twins = augment(images[:1].expand(6, -1, -1, -1), BatchRandom(3, stop=6))
    assert (name == "none") == torch.equal(twins[0], twins[1])


@pytest.mark.parametrize("name", ["diffaug", "ada"])
def test_gradients_of_images_pass_through(name):
    augment = AUGMENTATIONS[name]()
    if name == "ada":
        augment.p.fill_(1.0)
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, BatchRandom(1, stop=4)).square().mean(1), images)


def test_diffaug_keeps_the_shape_and_the_dtype():
    images = torch.zeros(3, 1, 28, 28)
    assert DiffAugment()(images, BatchRandom(0, stop=3)).shape == images.shape


def test_without_probability_nothing_changes():
    images = torch.randn(5, 3, 8, 8)
    augment = AdaptiveAugment()
    torch.testing.assert_close(augment(images, BatchRandom(0, stop=5)), images, atol=1e-5, rtol=1e-5)


def test_geometry_is_mirroring_turning_or_moving():
    """With all else off, quarter turns and mirrors only permute pixels: every result is one of eight images."""
    images = torch.randn(1, 1, 6, 6).expand(400, -1, -1, -1)

    class Chosen(BatchRandom):
        """Lets mirror and quarter turn happen, and nothing else."""

        def uniform(self, *shape):
            drawn = super().uniform(*shape)
            if shape == (8,):
                drawn[:, :2], drawn[:, 2:] = 0.0, 1.0
            return drawn

    turned = move_and_turn(images, Chosen(0, stop=400), torch.tensor(0.5))
    eight = [image.rot90(k, (2, 3)) for image in (images[:1], images[:1].flip(3)) for k in range(4)]
    distance = torch.stack([(turned - image).abs().amax((1, 2, 3)) for image in eight])  # (8, 400)
    assert distance.min(0).values.max() < 1e-4
    assert distance.argmin(0).bincount(minlength=8).min() > 20


def test_colour_changes_keep_the_hue_of_grey():
    grey = torch.rand(50, 1, 4, 4).expand(-1, 3, -1, -1)
    changed = change_colour(grey, BatchRandom(0, stop=50), torch.tensor(1.0))
    torch.testing.assert_close(changed, changed.mean(1, keepdim=True).expand_as(changed), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(changed, grey)


def controller(*signs: float) -> AdaptiveAugment:
    augment = AdaptiveAugment(images_to_full=1000)
    augment.p.fill_(0.5)
    augment.observe(torch.tensor(signs)[:, None])
    return augment


def test_the_controller_moves_towards_its_target():
    overfitting, doubting = controller(1, 1, 1, 1), controller(1, 1, -1, -1)
    overfitting.adapt(4)
    doubting.adapt(4)
    assert overfitting.p.item() == pytest.approx(0.504) and doubting.p.item() == pytest.approx(0.496)
    assert overfitting.signs.count_nonzero() == 0


def test_the_controller_waits_for_its_time_and_stays_a_probability():
    augment = controller(1, 1)
    augment.adapt(3)
    assert augment.p.item() == 0.5 and math.isclose(augment.signs[1].item(), 2)
    augment.p.fill_(1.0)
    augment.adapt(8)
    assert augment.p.item() == 1
    doubting = controller(-1)
    doubting.p.fill_(0.0)
    doubting.adapt(0)
    assert doubting.p.item() == 0
