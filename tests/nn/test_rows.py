"""Facts about the order of a sheet that shows two sets."""

import math

import pytest
import torch

from genai_cli.nn.rows import alternate_rows


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
