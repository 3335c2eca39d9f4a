"""Music as a picture: a piano roll, time to the right, pitch upwards, one colour for each voice."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genai_cli.media.midi import Note, Score

COLOURS = ((204, 71, 61), (219, 148, 28), (60, 140, 84), (36, 90, 166), (130, 84, 160), (90, 100, 110))  # RGB, by voice
PAPER, BLACK_KEYS, BARS, OCTAVES = (255, 255, 255), (243, 244, 246), (214, 218, 224), (226, 228, 232)
WIDTH = 1200  # pixels of a sheet, about
ROW_HEIGHT = 4  # pixels of a semitone
GAP = 10  # pixels between rolls
QUARTERS_PER_BAR = 4
LOWEST_KEY, NUM_KEYS = 21, 88  # of a piano, as MIDI pitches


def piano_roll(score: Score, *, low: int, high: int, num_steps: int, step_width: int) -> Tensor:
    """(3, H, W) uint8: the pitches `low` to `high`, the first `num_steps` steps. Notes outside are not drawn."""
    rows = high - low + 1
    picture = torch.tensor(PAPER, dtype=torch.uint8).view(3, 1, 1).repeat(1, rows * ROW_HEIGHT, num_steps * step_width)
    for pitch in range(low, high + 1):
        top = (high - pitch) * ROW_HEIGHT
        if pitch % 12 in (1, 3, 6, 8, 10):
            _fill(picture[:, top : top + ROW_HEIGHT], BLACK_KEYS)
        if pitch % 12 == 0:
            _fill(picture[:, top + ROW_HEIGHT - 1], OCTAVES)
    bar = QUARTERS_PER_BAR * score.steps_per_quarter
    for step in range(0, num_steps, bar):
        _fill(picture[:, :, step * step_width], BARS)
    for note in score.notes:
        if low <= note.pitch <= high and note.start < num_steps:
            top, left = (high - note.pitch) * ROW_HEIGHT, note.start * step_width
            # A pixel of paper at the end of each note parts it from the next of the same pitch.
            right = min(note.start + note.length, num_steps) * step_width - 1
            _fill(picture[:, top : top + ROW_HEIGHT, left : max(right, left + 1)], COLOURS[note.voice % len(COLOURS)])
    return picture


def roll_sheet(scores: Sequence[Score]) -> Tensor:
    """(3, H, W) uint8: the rolls of `scores` below each other (two beside each other, of more than four)."""
    pitches = [note.pitch for score in scores for note in score.notes] or [60]
    low, high = max(min(pitches) - 2, 0), min(max(pitches) + 2, 127)
    num_steps = max([score.length for score in scores] + [1])
    columns = 2 if len(scores) > 4 else 1
    step_width = max(WIDTH // columns // num_steps, 1)
    rolls = [piano_roll(score, low=low, high=high, num_steps=num_steps, step_width=step_width) for score in scores]
    _, height, width = rolls[0].shape
    rows = math.ceil(len(rolls) / columns)
    sheet = torch.full((3, GAP + rows * (height + GAP), GAP + columns * (width + GAP)), 190, dtype=torch.uint8)
    for i, roll in enumerate(rolls):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        sheet[:, top : top + height, left : left + width] = roll
    return sheet


def score_of_roll(roll: Tensor) -> Score:
    """(T, 88), above 1/2 where a key sounds, a quarter each; a key that goes on sounding is one long note.

    A note's voice is its rank from above in the quarter in which it begins.
    """
    is_on = roll > 0.5
    notes = []
    for key in is_on.any(0).nonzero().flatten().tolist():
        steps = is_on[:, key].nonzero().flatten().tolist()
        starts = [step for step in steps if step == 0 or not is_on[step - 1, key]]
        ends = [step + 1 for step in steps if step + 1 == len(roll) or not is_on[step + 1, key]]
        for start, end in zip(starts, ends, strict=True):
            notes.append(Note(start, end - start, LOWEST_KEY + key, int(is_on[start, key + 1 :].sum())))
    return Score(tuple(sorted(notes)), 1)


def roll_of_score(score: Score) -> Tensor:
    """(T, 88) float32 of 0 and 1, a step each: the inverse of `score_of_roll` on scores of whole quarters.

    Raises ValueError for a pitch that no piano has.
    """
    roll = torch.zeros(score.length, NUM_KEYS)
    for note in score.notes:
        if not LOWEST_KEY <= note.pitch < LOWEST_KEY + NUM_KEYS:
            raise ValueError(f"pitch {note.pitch} at step {note.start} is not on a piano's keyboard")
        roll[note.start : note.start + note.length, note.pitch - LOWEST_KEY] = 1
    return roll


def _fill(pixels: Tensor, colour: tuple[int, int, int]) -> None:
    """Paint (3, ...) `pixels` in place."""
    pixels.copy_(torch.tensor(colour, dtype=torch.uint8).view(3, *[1] * (pixels.dim() - 1)))
