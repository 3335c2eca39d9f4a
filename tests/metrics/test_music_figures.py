"""Rule statistics of chorales, on chords that break one rule each."""

import pytest
import torch

from genai_cli.data.chorales import RANGES, Chorales
from genai_cli.data.pieces import frames_of_score
from genai_cli.metrics.music import chorale_figures, ends_with_cadence, frames_of, is_triad, num_changes, parallels

FIFTHS = torch.tensor([[67, 60], [69, 62]])  # G above C, then A above D
CADENCE = torch.tensor([[74, 71, 67, 55], [72, 67, 64, 48]])  # V, I


def test_parallel_fifths_and_octaves_are_counted() -> None:
    assert parallels(FIFTHS) == 1
    assert parallels(torch.tensor([[72, 60], [74, 62]])) == 1
    assert parallels(torch.tensor([[67, 60], [67, 60], [62, 67]])) == 0  # one stands, one crosses
    assert parallels(torch.tensor([[64, 60], [65, 62]])) == 0
    assert parallels(torch.tensor([[67, -1], [69, 62]])) == 0
    assert num_changes(FIFTHS.repeat_interleave(3, 0)) == 1


@pytest.mark.parametrize(
    ("frame", "expected"),
    [([72, 67, 64, 48], True), ([72, 67, 63, -1], True), ([72, 67, 65, 48], False), ([-1] * 4, False)],
)
def test_triads(frame, expected) -> None:
    assert is_triad(frame) == expected


def test_cadences() -> None:
    assert ends_with_cadence(CADENCE)
    assert ends_with_cadence(torch.cat([CADENCE, CADENCE[1:]]))
    assert not ends_with_cadence(CADENCE.flip(0))


def test_chorales_by_rule_break_none() -> None:
    frames = [frames_of_score(score, 4) for score in Chorales(size=5).scores("train")]
    figures = chorale_figures(frames, RANGES)
    assert figures == {"in_range": 1, "crossing": 0, "parallels": 0, "triads": 1, "cadence": 1}


def test_a_piece_without_an_end_has_no_cadence_to_judge() -> None:
    wrong = CADENCE.flip(0)
    assert chorale_figures([CADENCE, wrong], RANGES)["cadence"] == 0.5
    assert chorale_figures([CADENCE, wrong], RANGES, is_whole=[True, False])["cadence"] == 1
    assert "cadence" not in chorale_figures([CADENCE, wrong], RANGES, is_whole=[False, False])


def test_frames_of_notes() -> None:
    assert frames_of([(0, 2, 60, 0), (1, 1, 50, 1)], 2).tolist() == [[60, -1], [60, 50]]
    assert chorale_figures([], RANGES) == {}
