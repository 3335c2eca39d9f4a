"""Overlapping windows score every token but the first exactly once, each with a long context."""

import pytest
import torch

from genai_cli.data.windows import SlidingWindows, TokenWindows


@pytest.mark.parametrize("count", [2, 7, 8, 9, 12, 13, 40, 41])
@pytest.mark.parametrize("stride", [1, 3, 4, 8])
def test_every_target_counts_once_with_at_least_the_promised_context(count, stride):
    length = 8
    windows = SlidingWindows(TokenWindows(torch.arange(count), length=length, stride=length), stride=stride)
    rows = windows.fetch(torch.arange(len(windows)))
    scored = rows["tokens"][:, 1:][rows["mask"]]
    assert sorted(scored.tolist()) == list(range(1, count))
    for window, (tokens, mask) in enumerate(zip(rows["tokens"], rows["mask"], strict=True)):
        context = torch.arange(1, length + 1)[mask]  # tokens of the window before each target
        assert window == 0 or context.min() > length - stride
        assert (tokens[1:][mask] == tokens[0] + context).all()


def test_hash_is_that_of_the_text():
    plain = TokenWindows(torch.arange(40), length=8, stride=8)
    assert SlidingWindows(plain, stride=4).content_hash() == plain.content_hash()
