"""Which split an example belongs to: a function of its content, in the shares that were asked for."""

import hashlib

import pytest

from genai_cli.data.shares import share_of, share_of_digest, split_of


def test_shares_are_uniform_and_a_function_of_the_text():
    shares = [share_of(str(number)) for number in range(4000)]
    assert shares == [share_of(str(number)) for number in range(4000)] and len(set(shares)) == 4000
    for edge in (0.1, 0.5, 0.9):
        assert sum(share < edge for share in shares) / 4000 == pytest.approx(edge, abs=0.025)
    assert share_of("né") == share_of_digest(hashlib.sha256("né".encode()).hexdigest())


def test_splits_are_intervals_of_the_shares():
    shares = {"validation": 0.2, "test": 0.1}
    assert [split_of(share, **shares) for share in (0.0, 0.0999, 0.1, 0.2999, 0.3001, 0.9999)] == [
        "test", "test", "validation", "validation", "train", "train"
    ]  # fmt: skip


def test_the_share_of_a_text_stays_for_ever():
    """Written down: another one would move the test splits that figures were measured on."""
    assert [share_of(text) for text in ("CCO", "N")] == pytest.approx([0.668425089198, 0.550421382044], abs=1e-12)
