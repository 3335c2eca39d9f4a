"""Facts about the order of a sheet that shows two sets."""

import math

import pytest
import torch

from genai_cli.nn.rows import alternate_rows, side_by_side


@pytest.mark.parametrize(("count", "shown"), [(32, 32), (64, 50), (9, 8), (2, 2), (1, 1)])
def test_each_image_is_above_its_partner(count, shown):
    upper = torch.arange(count).view(count, 1)
    order = alternate_rows(upper, -1 - upper).flatten()
    assert len(order) == 2 * shown
    columns = math.ceil(math.sqrt(len(order)))  # as a sheet is laid out
    if count == 1:  # side by side
        assert order.tolist() == [0, -1]
        return
    above, below = order.view(-1, 2, columns).unbind(1)
    assert torch.equal(above.flatten(), torch.arange(shown))
    assert torch.equal(below, -1 - above)


@pytest.mark.parametrize(("count", "shown", "columns"), [(32, 6, 3), (5, 3, 3), (2, 2, 2)])
def test_each_series_is_above_its_partner_in_rows_of_three(count, shown, columns):
    upper = torch.arange(count).view(count, 1, 1).expand(-1, 4, 2)
    order = alternate_rows(upper, -1 - upper)[:, 0, 0]
    above, below = order.view(-1, 2, columns).unbind(1)
    assert torch.equal(above.flatten(), torch.arange(shown)) and torch.equal(below, -1 - above)


def test_columns_stand_next_to_each_other_in_a_sheet() -> None:
    source, made, truth = (torch.full((30, channels, 2, 2), float(channels)) for channels in (1, 3, 3))
    shown = side_by_side(source, made, truth)
    assert shown.shape == (81, 3, 2, 2)  # 27 rows of three: a square of nine by nine
    assert shown[:6, 0, 0, 0].tolist() == [1, 3, 3, 1, 3, 3]
    assert side_by_side(source[:4], made[:4], channels=1).shape == (4, 1, 2, 2)
    assert side_by_side(source[:1], made[:1]).shape == (2, 3, 2, 2)
