"""Chorales as piano rolls: what is read is what was written, and transposed pieces are the same pieces elsewhere."""

import hashlib
import json

import pytest
import torch

from genai_cli.data import jsb_rolls
from genai_cli.data.base import TensorSplit
from genai_cli.data.jsb_rolls import JsbRolls, TransposedRolls, as_floats, roll_tensors
from genai_cli.media.midi import Note, Score
from genai_cli.media.rolls import LOWEST_KEY, roll_of_score, score_of_roll
from genai_cli.metrics.music import roll_figures, voices_of_roll
from genai_cli.nn.random import BatchRandom

PIECES = {"train": [[[60, 64], [60]], [[48], [], [21, 108]]], "valid": [[[60]]], "test": [[[67, 55], [67, 55]]]}


@pytest.fixture
def root(tmp_path, monkeypatch):
    content = json.dumps(PIECES).encode()
    (tmp_path / "jsb_chorales").mkdir()
    (tmp_path / "jsb_chorales" / "jsb-chorales-quarter.json").write_bytes(content)
    monkeypatch.setattr(jsb_rolls, "SHA256", hashlib.sha256(content).hexdigest())
    return tmp_path


def test_a_split_is_the_pieces_of_the_file(root) -> None:
    data = JsbRolls(root=str(root))
    rows = data.load("train").fetch(torch.tensor([0, 1]))
    assert rows["roll"].shape == (2, *data.spec.shape) and rows["mask"].sum(1).tolist() == [2, 3]
    for roll, piece in zip(rows["roll"], PIECES["train"], strict=True):
        found = [(frame.nonzero().flatten() + LOWEST_KEY).tolist() for frame in roll]
        assert found == [sorted(pitches) for pitches in piece] + [[]] * (len(roll) - len(piece))


def test_pieces_move_as_a_whole_and_stay_on_the_keyboard() -> None:
    pieces = TensorSplit(roll_tensors([[[60, 64], [62]]] * 40 + [[[21, 108]]] * 8, 4), as_floats)
    split = TransposedRolls(pieces, 3)
    rows = split.fetch(torch.arange(48))
    moved = split.augment(rows, BatchRandom(0, stop=48))["roll"]
    lowest = {int(frame.nonzero()[0]) + LOWEST_KEY for frame in moved[:40, 0]}
    assert lowest == set(range(57, 64))
    for roll in moved[:40]:
        steps = roll.nonzero()
        assert (steps[:, 1] - steps[0, 1]).tolist() == [0, 4, 2] and steps[:, 0].tolist() == [0, 0, 1]
    assert torch.equal(moved[40:], rows["roll"][40:])
    again = split.augment(rows, BatchRandom(0, stop=48))["roll"]
    assert torch.equal(moved, again)
    assert split.content_hash() == pieces.content_hash()


def test_rolls_and_scores_are_each_others_inverse() -> None:
    score = Score((Note(0, 2, 60, 1), Note(0, 1, 64, 0), Note(2, 1, 60, 0), Note(3, 2, 60, 0)), 1)
    roll = roll_of_score(score)
    assert roll.sum() == 6
    joined = score_of_roll(roll)  # a key that goes on sounding is one note
    assert joined.notes == (Note(0, 1, 64, 0), Note(0, 5, 60, 1))
    assert torch.equal(roll_of_score(joined), roll)
    with pytest.raises(ValueError, match="not on a piano"):
        roll_of_score(Score((Note(0, 1, 20, 0),), 1))


def test_figures_of_rolls_are_counted_from_above() -> None:
    """Two chords of three notes, the first part of a triad, whose outer voices move in parallel octaves."""
    roll, _ = roll_tensors([[[48, 55, 60], [50, 51, 62]]], 5).values()
    assert voices_of_roll(roll[0].bool()).tolist()[0] == [39, 34, 27, -1]
    figures = roll_figures(roll.float())
    assert figures == {"three_or_four_notes": 1.0, "parallels": 1.0, "triads": 0.5}
    assert roll_figures(torch.zeros(2, 4, 88)) == {}
