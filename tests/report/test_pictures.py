"""Sheets are cut back into the images they were made of; what is no sheet of ours is left alone."""

from pathlib import Path

import pytest
import torch

from genai_cli.data.pixels import image_spec
from genai_cli.media.files import write_sheet
from genai_cli.media.sheets import image_grid, images_to_uint8
from genai_cli.report.pictures import cells_of, film, read_png, show, tile

SPEC = image_spec(1, 28, 28)


@pytest.mark.parametrize(("count", "shape"), [(64, (1, 28, 28)), (10, (3, 32, 32)), (7, (1, 8, 12)), (1, (3, 64, 64))])
def test_cells_are_the_images_of_the_sheet(count, shape):
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert cells_of(image_grid(images), shape, count).equal(images.expand(-1, 3, -1, -1))


def test_what_is_no_sheet_has_no_cells():
    assert cells_of(torch.zeros(3, 100, 101, dtype=torch.uint8), (1, 28, 28), 64) is None


def test_a_film_has_the_first_and_the_last_sheet(tmp_path: Path):
    images = torch.rand(9, 1, 28, 28) * 2 - 1
    for step in range(10, 400, 10):
        write_sheet(image_grid(images_to_uint8(images, SPEC)), tmp_path / f"step-{step:08d}")
    (tmp_path / "step-00000010-reconstruction.png").write_bytes(b"")
    (tmp_path / "step-00000500.png").write_bytes(b"no picture")
    frames = film(tmp_path, SPEC, 9)
    assert frames[0][0] == 10 and len(frames) == 8 and all("data:image/png" in picture for _, picture in frames)


def test_a_file_that_is_no_picture_is_none(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    assert read_png(path) is None


def test_tiles_lie_in_rows():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    assert tile(images, 3)[0].tolist() == [[0, 255, 1, 255, 2], [255] * 5, [3, 255, 4, 255, 5]]


def test_every_image_is_shown_in_one_picture():
    assert show(torch.zeros(5, 1, 28, 28), SPEC, "x", columns=3).count("<img") == 1
