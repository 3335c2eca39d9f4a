"""Chorales by rule: four voices that obey textbook part-writing, drawn from a seed.

`genai train model=gpt dataset=chorales`

Phrases of triads in root position, each phrase closed by a cadence, voiced so that no voice leaves its range or crosses
another, no two move in parallel fifths or octaves, and every chord is complete. Among the voicings that obey, a
shortest path with random costs chooses (Viterbi).
"""

import random
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise

import numpy

from genai_cli.data.base import Dataset, SplitName
from genai_cli.data.music_tokens import VoiceTokenizer
from genai_cli.data.pieces import music_spec, music_windows
from genai_cli.data.windows import TokenWindows
from genai_cli.media.midi import Note, Score
from genai_cli.nn.random import mix
from genai_cli.rules import NonNegativeInt, PositiveInt

_STREAMS = {"train": 0, "validation": 1, "test": 2}
RANGES = ((60, 81), (53, 74), (48, 69), (40, 62))  # soprano, alto, tenor, bass
STEPS_PER_QUARTER = 2
FORBIDDEN = 1e9  # cost


@dataclass(frozen=True)
class Mode:
    """Triads by degree, as semitones above the tonic, the root first; and which may follow which."""

    triads: dict[str, tuple[int, int, int]]
    follows: dict[str, tuple[str, ...]]


MAJOR = Mode(
    {"I": (0, 4, 7), "ii": (2, 5, 9), "IV": (5, 9, 0), "V": (7, 11, 2), "vi": (9, 0, 4)},
    {"I": ("IV", "V", "vi", "ii"), "ii": ("V",), "IV": ("V", "I", "ii"), "V": ("I", "vi"), "vi": ("IV", "ii")},
)
MINOR = Mode(
    {"I": (0, 3, 7), "IV": (5, 8, 0), "V": (7, 11, 2), "VI": (8, 0, 3), "VII": (10, 2, 5), "III": (3, 7, 10)},
    {"I": ("IV", "V", "VI", "VII"), "IV": ("V", "I", "VII"), "V": ("I",), "VI": ("IV", "III"), "VII": ("III",),
     "III": ("IV", "VI")},
)  # fmt: skip


class Chorales(Dataset):
    """Four-part chorales that obey textbook rules, drawn from a seed."""

    modality = "music"

    def __init__(
        self,
        *,
        size: PositiveInt = 400,  # chorales to train on
        held_out: PositiveInt = 50,  # in each of the validation and test splits
        phrases: PositiveInt = 4,  # of two bars each
        length: PositiveInt = 256,  # tokens that a prediction may look back on
        transpose: NonNegativeInt = 0,  # semitones up and down in which the training pieces are repeated
        seed: NonNegativeInt = 0,
    ):
        self.sizes = {"train": size, "validation": held_out, "test": held_out}
        self.phrases, self.length, self.transpose, self.seed = phrases, length, transpose, seed
        self.tokenizer = VoiceTokenizer(steps_per_quarter=STEPS_PER_QUARTER)
        self.spec = music_spec(self.tokenizer, length)

    def load(self, split: SplitName) -> TokenWindows:
        return music_windows(
            self.scores(split),
            self.tokenizer,
            length=self.length,
            is_training=split == "train",
            transpose=self.transpose,
            source="chorales",
        )

    def scores(self, split: SplitName) -> list[Score]:
        """The pieces of a split; piece i is a function of (seed, split, i)."""
        return [
            compose_chorale(random.Random(mix(self.seed, _STREAMS[split], i)), self.phrases)
            for i in range(self.sizes[split])
        ]


def compose_chorale(rng: random.Random, num_phrases: int) -> Score:
    """Phrases of seven chords: six quarter notes and a half note."""
    mode = rng.choice((MAJOR, MINOR))
    tonic = rng.randrange(12)
    degrees = [degree for phrase in range(num_phrases) for degree in _phrase(rng, mode, phrase == num_phrases - 1)]
    chords = [tuple((tonic + tone) % 12 for tone in mode.triads[degree]) for degree in degrees]
    notes, start = [], 0
    for i, pitches in enumerate(lead_voices(rng, chords)):
        length = (2 if i % 7 == 6 else 1) * STEPS_PER_QUARTER
        notes += [Note(start, length, int(pitch), voice) for voice, pitch in enumerate(pitches)]
        start += length
    return Score(tuple(sorted(notes)), STEPS_PER_QUARTER)


def _phrase(rng: random.Random, mode: Mode, is_last: bool) -> list[str]:
    """Seven degrees from I to a cadence: V I, or within the piece also I V."""
    cadence = ["V", "I"] if is_last or rng.random() < 0.6 else ["I", "V"]
    while True:
        degrees = ["I"]
        while len(degrees) < 5:
            degrees.append(rng.choice(mode.follows[degrees[-1]]))
        if cadence[0] in mode.follows[degrees[-1]]:
            return degrees + cadence


def lead_voices(rng: random.Random, chords: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """(soprano, alto, tenor, bass) of each chord: the cheapest way through the voicings that breaks no rule."""
    noise = numpy.random.default_rng(rng.getrandbits(64))
    options = [voicings(chord) for chord in chords]  # each (K, 4)
    total = 3 * noise.random(len(options[0]))
    origins = []
    for before, after in pairwise(options):
        costs = total[:, None] + motion_costs(before, after) + 6 * noise.random(len(after))
        origins.append(costs.argmin(0))
        total = costs.min(0)
    assert total.min() < FORBIDDEN, f"no way to lead the voices through {chords}"
    path = [int(total.argmin())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return [tuple(option[k]) for option, k in zip(options, reversed(path), strict=True)]


@cache
def voicings(chord: tuple[int, ...]) -> numpy.ndarray:
    """(K, 4) pitches: all tones of the triad, the root in the bass, at most an octave between the upper voices.

    The third is not doubled: in V it is the leading note.
    """
    per_voice = [[pitch for pitch in range(low, high + 1) if pitch % 12 in chord] for low, high in RANGES]
    found = []
    for soprano in per_voice[0]:
        for alto in (pitch for pitch in per_voice[1] if soprano - 12 <= pitch < soprano):
            for tenor in (pitch for pitch in per_voice[2] if alto - 12 <= pitch < alto):
                tones = [pitch % 12 for pitch in (soprano, alto, tenor)]
                if {*tones, chord[0]} != set(chord) or tones.count(chord[1]) > 1:
                    continue
                found += [
                    (soprano, alto, tenor, bass) for bass in per_voice[3] if bass < tenor and bass % 12 == chord[0]
                ]
    return numpy.array(found)


def motion_costs(before: numpy.ndarray, after: numpy.ndarray) -> numpy.ndarray:
    """(K, 4) and (K', 4) to (K, K'): semitones moved, and FORBIDDEN for parallels and for leaps above a sixth."""
    motion = after[None] - before[:, None]  # (K, K', 4)
    distance = numpy.abs(motion)
    costs = distance[..., :3].sum(-1) + 0.3 * distance[..., 3]
    is_wrong = (distance[..., :3] > 7).any(-1) | (distance[..., 3] > 12)
    for upper, lower in combinations(range(4), 2):
        first = (before[:, upper] - before[:, lower])[:, None] % 12
        second = (after[:, upper] - after[:, lower])[None] % 12
        both_move = (motion[..., upper] != 0) & (motion[..., lower] != 0)
        is_wrong |= both_move & (first == second) & numpy.isin(first, (0, 7))
    return numpy.where(is_wrong, FORBIDDEN, costs)
