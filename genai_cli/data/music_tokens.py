"""Music to tokens and back: a grid of voices (after DeepBach, Hadjeres et al. 2017), or events for any music.

In both, token 0 stands before a piece and after it, and a grammar lets untrained models write scores that can be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.tokenizers import FollowGrammar, Tokenizer
from genai_cli.media.midi import Note, Score, quantise, read_midi

CHORAL_RANGES = ((57, 84), (49, 77), (43, 72), (33, 69))  # MIDI pitches of soprano, alto, tenor and bass, with room


class VoiceTokenizer(Tokenizer):
    """Time steps of one token a voice: a rest, a pitch that begins, or a pitch that goes on.

    Each voice has tokens of its own, so a token says which voice comes next. `decode` leaves out tokens that are not of
    the voice whose turn it is, and an unfinished last step.
    """

    end = 0

    def __init__(self, ranges: Sequence[Sequence[int]] = CHORAL_RANGES, *, steps_per_quarter: int):
        """`ranges`: the lowest and the highest pitch of each voice."""
        self.ranges = [(int(low), int(high)) for low, high in ranges]
        self.steps_per_quarter = steps_per_quarter
        sizes = [1 + 2 * (high - low + 1) for low, high in self.ranges]
        self.offsets = [1 + sum(sizes[:voice]) for voice in range(len(sizes) + 1)]  # the rest of each voice, and V
        self.vocabulary_size = self.offsets[-1]

    def encode(self, score: Score) -> Tensor:
        """Token 0, then the score's steps. In a voice, the next note ends the one before it.

        Raises ValueError for a pitch out of its voice's range or a voice too many.
        """
        score = quantise(score, self.steps_per_quarter)
        num_voices = len(self.ranges)
        frames = torch.tensor(self.offsets[:num_voices]).repeat(score.length, 1)  # (T, num_voices), all rests
        for note in sorted(score.notes):
            if note.voice >= num_voices:
                raise ValueError(f"the score has more than {num_voices} voices")
            low, high = self.ranges[note.voice]
            if not low <= note.pitch <= high:
                raise ValueError(
                    f"pitch {note.pitch} of voice {note.voice + 1} at step {note.start} is not in {low} to {high}"
                )
            onset = self.offsets[note.voice] + 1 + 2 * (note.pitch - low)
            voice = frames[note.start :, note.voice]
            voice[:] = self.offsets[note.voice]  # of a longer note that this one ends
            voice[: note.length] = onset + 1
            voice[0] = onset
        return torch.cat([torch.zeros(1, dtype=torch.int64), frames.flatten()])

    def decode(self, tokens: Tensor) -> Score:
        self._check_range(tokens)
        notes: list[Note] = []
        sounding: dict[int, int] = {}  # voice -> the index of its last note, where that still sounds
        for step, kinds in enumerate(self._steps(_first_piece(tokens))):
            for voice, kind in enumerate(kinds):  # 0 a rest, then for each pitch: it begins, it goes on
                pitch = self.ranges[voice][0] + (kind - 1) // 2
                last = sounding.get(voice)
                if kind == 0:
                    sounding.pop(voice, None)
                elif kind % 2 == 0 and last is not None and notes[last].pitch == pitch:
                    notes[last] = replace(notes[last], length=notes[last].length + 1)
                else:
                    sounding[voice] = len(notes)
                    notes.append(Note(step, 1, pitch, voice))
        return Score(tuple(sorted(notes)), self.steps_per_quarter)

    def _steps(self, tokens: list[int]) -> list[list[int]]:
        """The whole steps in `tokens`, each a number below the size of the voice's own vocabulary for every voice."""
        kinds: list[int] = []
        num_voices = len(self.ranges)
        for token in tokens:
            voice = len(kinds) % num_voices
            if self.offsets[voice] <= token < self.offsets[voice + 1]:
                kinds.append(token - self.offsets[voice])
        return [kinds[i : i + num_voices] for i in range(0, len(kinds) - num_voices + 1, num_voices)]

    def prompt(self, text: str) -> Tensor:
        """`text` is the path of a MIDI file of as many voices, the highest first by the mean of its pitches."""
        score = read_score(text)
        voices = {note.voice for note in score.notes}
        if len(voices) != len(self.ranges):
            raise ValueError(f"it has {len(voices)} voices (tracks with notes), not {len(self.ranges)}")
        pitches = {voice: [note.pitch for note in score.notes if note.voice == voice] for voice in voices}
        order = sorted(voices, key=lambda voice: -sum(pitches[voice]) / len(pitches[voice]))
        notes = sorted(replace(note, voice=order.index(note.voice)) for note in score.notes)
        return self.encode(Score(tuple(notes), score.steps_per_quarter))

    def transposed(self, tokens: Tensor, semitones: int) -> Tensor | None:
        """What `encode` gives for the transposed score; None where a pitch would leave its voice's range."""
        voice = torch.bucketize(tokens, torch.tensor(self.offsets), right=True) - 1  # -1: token 0
        rests = torch.tensor([0, *self.offsets])[voice + 1]
        moved = torch.where((voice < 0) | (tokens == rests), tokens, tokens + 2 * semitones)
        after = torch.tensor([0, *self.offsets[1:], 0])[voice + 1]
        stays = (moved == tokens) | ((moved > rests) & (moved < after))
        return moved if bool(stays.all()) else None

    def grammar(self, rows: int) -> FollowGrammar:
        """Voice after voice; the piece may end where a step would begin."""
        voice_of = torch.full((self.vocabulary_size,), -1)  # of token 0: none
        for voice, (start, stop) in enumerate(pairwise(self.offsets)):
            voice_of[start:stop] = voice
        last = len(self.ranges) - 1
        follows = voice_of[None, :] == (voice_of[:, None] + 1)  # after token 0, voice 0
        follows[:, 0] = voice_of == last
        follows[voice_of == last] |= (voice_of == 0)[None, :]
        return FollowGrammar(follows)

    def to_json(self) -> dict[str, Any]:
        ranges = [list(pair) for pair in self.ranges]
        return {"name": "voices", "ranges": ranges, "steps_per_quarter": self.steps_per_quarter}


class EventTokenizer(Tokenizer):
    """Notes in the order of their starts, each a pitch and then its length; between starts, steps of time.

    Lengths and times above `longest` steps take several tokens. Voices are not kept: `decode` puts all into one.
    """

    end = 0

    def __init__(self, *, low: int = 21, high: int = 108, longest: int = 32, steps_per_quarter: int):
        """`low` and `high`: the range of the pitches, by default a piano's."""
        self.low, self.high, self.longest = low, high, longest
        self.steps_per_quarter = steps_per_quarter
        self.first_length = 1 + longest  # tokens 1 to `longest` let time pass
        self.first_pitch = 1 + 2 * longest
        self.vocabulary_size = self.first_pitch + high - low + 1

    def encode(self, score: Score) -> Tensor:
        """Token 0, then the events. Raises ValueError for a pitch out of range."""
        score = quantise(score, self.steps_per_quarter)
        tokens, now = [0], 0
        for note in sorted(score.notes):
            if not self.low <= note.pitch <= self.high:
                raise ValueError(f"pitch {note.pitch} at step {note.start} is not in {self.low} to {self.high}")
            tokens += self._parts(note.start - now)
            tokens.append(self.first_pitch + note.pitch - self.low)
            tokens += [self.longest + part for part in self._parts(note.length)]
            now = note.start
        return torch.tensor(tokens)

    def _parts(self, steps: int) -> list[int]:
        """`steps` as summands of at most `longest`, the largest first."""
        return [self.longest] * (steps // self.longest) + ([steps % self.longest] if steps % self.longest else [])

    def decode(self, tokens: Tensor) -> Score:
        """A pitch without a length is left out."""
        self._check_range(tokens)
        notes: list[Note] = []
        now, pitch, length = 0, None, 0
        for token in [*_first_piece(tokens), 0]:
            if self.first_length <= token < self.first_pitch:
                length += token - self.longest
                continue
            if pitch is not None and length > 0:
                notes.append(Note(now, length, pitch))
            pitch, length = None, 0
            if token >= self.first_pitch:
                pitch = self.low + token - self.first_pitch
            else:
                now += token
        return Score(tuple(sorted(notes)), self.steps_per_quarter)

    def prompt(self, text: str) -> Tensor:
        """`text` is the path of a MIDI file."""
        return self.encode(read_score(text))

    def transposed(self, tokens: Tensor, semitones: int) -> Tensor | None:
        """What `encode` gives for the transposed score; None where a pitch would leave the range."""
        moved = torch.where(tokens >= self.first_pitch, tokens + semitones, tokens)
        is_in_range = (moved < self.vocabulary_size) & ((moved >= self.first_pitch) | (moved == tokens))
        return moved if bool(is_in_range.all()) else None

    def grammar(self, rows: int) -> FollowGrammar:
        """A length after a pitch, and nowhere else but after a length."""
        token = torch.arange(self.vocabulary_size)
        is_length = (token >= self.first_length) & (token < self.first_pitch)
        is_pitch = token >= self.first_pitch
        follows = ~is_length.expand(self.vocabulary_size, -1).clone()  # pitches, time and the end
        follows[is_length] = True
        follows[is_pitch] = is_length
        follows[0, 0] = False  # a piece has something in it
        return FollowGrammar(follows)

    def to_json(self) -> dict[str, Any]:
        keys = ("low", "high", "longest", "steps_per_quarter")
        return {"name": "events", **{key: getattr(self, key) for key in keys}}


def music_tokenizer_from_json(record: Mapping[str, Any]) -> VoiceTokenizer | EventTokenizer:
    """Of a record named "voices" or "events". Raises ValueError for keys or values that none of them has."""
    kinds = {"voices": VoiceTokenizer, "events": EventTokenizer}
    try:
        return kinds[record["name"]](**{key: value for key, value in record.items() if key != "name"})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{dict(record)!r} is not the record of a tokenizer: {error}") from error


def read_score(path: str) -> Score:
    """The notes of a MIDI file. Raises ValueError where it cannot be read or holds no notes."""
    try:
        score = read_midi(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; give the path of a MIDI file") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not score.notes:
        raise ValueError(f"{path} holds no notes")
    return score


def _first_piece(tokens: Tensor) -> list[int]:
    """The tokens between the start and the first end."""
    body = tokens.tolist()
    while body and body[0] == 0:
        body = body[1:]
    return body[: body.index(0)] if 0 in body else body
