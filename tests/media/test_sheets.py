"""Sheets: the pixels of each sample are where the grid says, points land where the axes say, texts are whole."""

import pytest
import torch

from genai_cli.data.base import Spec
from genai_cli.data.tokenizers import ByteTokenizer
from genai_cli.media.plots import frame, opacity, plot_points, ticks
from genai_cli.media.sheets import MOST_IMAGES, PADDING, image_grid, images_to_uint8, sheet

GREY = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))
COLOUR = Spec("image", (3, 4, 6), value_range=(0.0, 1.0))
POINTS = Spec("points", (2,))
TEXT = Spec("text", (8,), tokenizer=ByteTokenizer().to_json(), vocabulary_size=256)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17])
def test_grid_holds_every_image_enlarged_by_a_whole_factor(count):
    images = torch.arange(count * 3 * 4 * 6, dtype=torch.int64).remainder(200).to(torch.uint8).view(count, 3, 4, 6)
    grid = image_grid(images)
    columns = next(n for n in range(1, 9) if n * n >= count)
    scale = (grid.shape[2] - PADDING) // columns // 6
    assert grid.shape[2] == PADDING + columns * (6 * scale + PADDING)
    for i, image in enumerate(images):
        top, left = PADDING + i // columns * (4 * scale + PADDING), PADDING + i % columns * (6 * scale + PADDING)
        cell = grid[:, top : top + 4 * scale, left : left + 6 * scale]
        assert torch.equal(cell[:, ::scale, ::scale], image)
        assert torch.equal(cell[:, scale - 1 :: scale, scale - 1 :: scale], image)
    shown = count * 3 * 4 * 6 * scale**2
    assert (grid != 255).sum() == shown - (images == 255).sum() * scale**2  # all the rest is white


def test_grey_images_become_rgb_and_out_of_range_is_clamped():
    values = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0, torch.nan, torch.inf, -torch.inf])
    images = values.view(8, 1, 1, 1).expand(8, 1, 4, 4)
    assert images_to_uint8(images, GREY)[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255, 0, 255, 0]
    grid = sheet(images, GREY)
    assert grid.dtype == torch.uint8 and torch.equal(grid[0], grid[1]) and torch.equal(grid[0], grid[2])


def test_large_sets_are_shown_in_part():
    assert (
        sheet(torch.zeros(MOST_IMAGES + 300, *COLOUR.shape), COLOUR).shape
        == sheet(torch.zeros(MOST_IMAGES, *COLOUR.shape), COLOUR).shape
    )


def test_points_land_where_their_coordinates_say():
    cover = opacity(torch.tensor([[0.25, 0.9], [2.0, 0.5]]), 100, 100)  # the second is outside
    row, column = (cover.nonzero() + 0.5).mean(0)
    assert abs(column - 25) <= 1 and abs(row - 10) <= 1  # y points up
    assert 0 < cover.max() < 1 and cover[:, 40:].max() == 0


def test_frame_holds_the_points_but_not_an_outlier():
    points = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)).double()
    points[0] = torch.tensor([1e6, 0.0])
    center, half_width = frame(points)
    assert center.abs().max() < 0.2 and 2.5 < half_width < 4


@pytest.mark.parametrize(
    "points",
    [torch.zeros(3, 2), torch.full((4, 2), torch.nan), torch.ones(1, 2) * 1e12, torch.eye(9, 5), torch.zeros(0, 2)],
)
def test_any_points_make_a_picture(points):
    picture = sheet(points, POINTS)
    assert picture.shape == (3, 640, 640) and picture.dtype == torch.uint8


def test_points_of_one_dimension_are_refused():
    with pytest.raises(ValueError, match="no two coordinates"):
        plot_points(torch.zeros(4, 1))


def test_ticks_are_round_and_within():
    assert ticks(-2.3, 2.3) == [-2, -1, 0, 1, 2]
    assert ticks(0.0, 0.06) == [0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    for low, high in [(-1e9, 2e9), (3.0001, 3.0002), (-7, 100)]:
        assert 2 <= len(ticks(low, high)) <= 8 and low <= ticks(low, high)[0] <= ticks(low, high)[-1] <= high


def test_texts_are_decoded_and_separated():
    tokens = torch.stack([ByteTokenizer().encode("one \n 1."), ByteTokenizer().encode("月光!!")])
    text = sheet(tokens, TEXT)
    assert "one \n 1.\n" in text and "月光!!\n" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("────")] == ["0", "1"]
