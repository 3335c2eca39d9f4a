"""Rule statistics of four-part music: to be compared with those of the training pieces, which break rules too."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

PERFECT = (0, 7)  # semitones of octaves and fifths, octaves apart


def frames_of(notes: Sequence[tuple[int, int, int, int]], num_voices: int) -> Tensor:
    """(T, num_voices) int64 from (start, length, pitch, voice) of each note; -1 where a voice is silent."""
    total = max((start + length for start, length, _, _ in notes), default=0)
    frames = torch.full((total, num_voices), -1)
    for start, length, pitch, voice in notes:
        frames[start : start + length, voice] = pitch
    return frames


def chorale_figures(
    pieces: Sequence[Tensor], ranges: Sequence[tuple[int, int]], *, is_whole: Sequence[bool] | None = None
) -> dict[str, float]:
    """Of pieces as frames (T, N), the highest voice first; `ranges` are the lowest and highest pitch of each voice.
    `is_whole` says which pieces come to an end of their own: the others have no cadence to judge; null: all.

    in_range: share of sounding frames within its voice's range. crossing: share of frames in which a voice is above its
    upper neighbour. parallels: pairs of voices that move in parallel fifths or octaves, for each change of chord.
    triads: share of frames that hold three pitch classes which stack to a major or minor triad, or a part of one.
    cadence: share of whole pieces that end in the bass with a fifth down or a fourth up, and on a triad above its root.
    """
    whole = [len(piece) > 0 for piece in pieces] if is_whole is None else is_whole
    ended = [piece for piece, is_over in zip(pieces, whole, strict=True) if is_over and len(piece)]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return {}
    sounding = [[piece[:, voice][piece[:, voice] >= 0] for piece in pieces] for voice in range(pieces[0].shape[1])]
    inside = total = 0
    for (low, high), parts in zip(ranges, sounding, strict=True):
        pitches = torch.cat(parts)
        inside += int(((pitches >= low) & (pitches <= high)).sum())
        total += len(pitches)
    frames = torch.cat(pieces)
    upper, lower = frames[:, :-1], frames[:, 1:]
    figures = {
        "in_range": inside / max(total, 1),
        "crossing": float(((upper < lower) & (upper >= 0)).any(1).float().mean()),
        "parallels": sum(map(parallels, pieces)) / max(sum(map(num_changes, pieces)), 1),
        "triads": float(torch.tensor([is_triad(frame) for frame in frames.tolist()]).float().mean()),
    }
    return figures | ({"cadence": sum(map(ends_with_cadence, ended)) / len(ended)} if ended else {})


def roll_figures(rolls: Tensor) -> dict[str, float]:
    """Of piano rolls (B, T, 88), what sounds of each frame counted from above as voices; silence at the end left out.

    three_or_four_notes: share of frames with so many. parallels, triads: as in `chorale_figures`.
    """
    pieces = [roll[: int(roll.any(1).nonzero().max()) + 1] > 0.5 for roll in rolls if roll.any()]
    if not pieces:
        return {}
    counts = torch.cat(pieces).sum(1)
    frames = [voices_of_roll(piece) for piece in pieces]
    figures = chorale_figures(frames, [(0, 127)] * frames[0].shape[1])
    chosen = {name: figures[name] for name in ("parallels", "triads")}
    return {"three_or_four_notes": float(((counts == 3) | (counts == 4)).float().mean()), **chosen}


def voices_of_roll(roll: Tensor, num_voices: int = 4) -> Tensor:
    """(T, 88) bool to (T, num_voices) int64: the highest keys that sound, from above; -1 where there are fewer."""
    keys = torch.where(roll, torch.arange(roll.shape[1]), -1)
    return keys.sort(1, descending=True).values[:, :num_voices]


def num_changes(frames: Tensor) -> int:
    """How often the chord changes."""
    return len(torch.unique_consecutive(frames, dim=0)) - 1


def parallels(frames: Tensor) -> int:
    """How often two voices move together from a fifth to a fifth or from an octave to an octave."""
    chords = torch.unique_consecutive(frames, dim=0)
    before, after = chords[:-1], chords[1:]
    count = 0
    for a, b in combinations(range(frames.shape[1]), 2):
        sounds = (before[:, [a, b]] >= 0).all(1) & (after[:, [a, b]] >= 0).all(1)
        move = (before[:, a] != after[:, a]) & (before[:, b] != after[:, b])
        first, second = (before[:, a] - before[:, b]).abs() % 12, (after[:, a] - after[:, b]).abs() % 12
        perfect = (first == PERFECT[0]) | (first == PERFECT[1])
        count += int((sounds & move & perfect & (first == second)).sum())
    return count


def is_triad(frame: Sequence[int]) -> bool:
    """Whether the pitches (-1: none) fit into one major or minor triad, and there is any."""
    classes = {pitch % 12 for pitch in frame if pitch >= 0}
    triads = ({(root + step) % 12 for step in (0, third, 7)} for root in range(12) for third in (3, 4))
    return bool(classes) and any(classes <= triad for triad in triads)


def ends_with_cadence(frames: Tensor) -> bool:
    """Whether the bass ends with a fifth down or a fourth up, on the root of a triad with a third."""
    chords = torch.unique_consecutive(frames, dim=0)
    basses = torch.unique_consecutive(chords[:, -1])
    if len(basses) < 2 or min(basses[-2:].tolist()) < 0 or (basses[-1] - basses[-2]) % 12 != 5:
        return False
    above = {(pitch - int(basses[-1])) % 12 for pitch in chords[-1].tolist() if pitch >= 0}
    return above in ({0, 3}, {0, 4}, {0, 3, 7}, {0, 4, 7})
