"""Pieces of music as examples: each split is one stream of tokens, cut into windows as a text is."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Spec
from genai_cli.data.music_tokens import EventTokenizer, VoiceTokenizer
from genai_cli.data.windows import TokenWindows
from genai_cli.media.midi import Note, Score


def music_spec(tokenizer: VoiceTokenizer | EventTokenizer, length: int) -> Spec:
    return Spec("music", (length,), tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)


def choose_tokenizer(name: str, steps_per_quarter: int) -> VoiceTokenizer | EventTokenizer:
    """Of four voices: "voices" or "events"."""
    kinds = {"voices": VoiceTokenizer, "events": EventTokenizer}
    return kinds[name](steps_per_quarter=steps_per_quarter)


def music_windows(
    scores: Iterable[Score],
    tokenizer: VoiceTokenizer | EventTokenizer,
    *,
    length: int,
    is_training: bool,
    transpose: int = 0,
    source: str,
) -> TokenWindows:
    """Windows of the pieces one after the other, token 0 before each and after the last.

    To train, a window begins at every token, and the pieces come also up to `transpose` semitones higher and lower,
    wherever their pitches stay in the vocabulary; else windows follow each other. DataError for too little music.
    """
    pieces = [tokenizer.encode(score) for score in scores]
    if is_training:
        moved = [tokenizer.transposed(piece, by) for by in range(-transpose, transpose + 1) for piece in pieces]
        pieces = [piece for piece in moved if piece is not None]
    tokens = torch.cat([*pieces, torch.zeros(1, dtype=torch.int64)])
    if len(tokens) < (length + 1 if is_training else 2):
        raise DataError(f"{source} has {len(tokens)} tokens, too few: give more music or a smaller dataset.length")
    return TokenWindows(tokens.to(torch.int32), length=length, stride=1 if is_training else length)


def score_of_frames(frames: Sequence[Sequence[int]], steps_per_quarter: int) -> Score:
    """A score from one pitch (or -1, silence) for each voice at each step; equal pitches in a row are one note."""
    notes = []
    for voice in range(len(frames[0]) if frames else 0):
        start = 0
        for step in range(1, len(frames) + 1):
            if step == len(frames) or frames[step][voice] != frames[start][voice]:
                if frames[start][voice] >= 0:
                    notes.append(Note(start, step - start, frames[start][voice], voice))
                start = step
    return Score(tuple(sorted(notes)), steps_per_quarter)


def frames_of_score(score: Score, num_voices: int) -> Tensor:
    """(T, num_voices) int64, -1 where a voice is silent: the inverse of `score_of_frames` up to repeated notes."""
    frames = torch.full((score.length, num_voices), -1)
    for note in score.notes:
        frames[note.start : note.start + note.length, note.voice] = note.pitch
    return frames
