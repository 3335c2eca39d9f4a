"""Notes made of harmonics, of four instruments and twelve pitch classes: `genai train model=wavenet dataset=tones`.

Small audio of which every sample can be heard and every number checked: a note has a pitch, harmonics that fall off as
its instrument has them, and an envelope. Drawn anew from `seed` whenever they are loaded.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from genai_cli.data.base import Dataset, Spec, SplitName, TensorSplit
from genai_cli.nn.random import mix
from genai_cli.rules import NonNegativeInt, PositiveInt

_STREAMS = {"train": 0, "validation": 1, "test": 2}
LOWEST = 57  # MIDI number of the lowest note: A3, 220 Hz
PITCHES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")
# Amplitudes of the multiples of the pitch, seconds to rise, and seconds to fall to 1 / e (null: it does not fall).
INSTRUMENTS: dict[str, tuple[tuple[float, ...], float, float | None]] = {
    "flute": ((1.0, 0.15, 0.05), 0.05, None),
    "string": ((1.0, 0.5, 0.33, 0.25, 0.2), 0.005, 0.15),
    "clarinet": ((1.0, 0.0, 0.6, 0.0, 0.35), 0.02, None),
    "bell": ((1.0, 0.0, 0.0, 0.6, 0.0, 0.0, 0.3), 0.002, 0.06),
}
FADE = 0.02  # seconds at the end of a clip
LOUD = 0.8  # of the loudest note


class Tones(Dataset):
    """Notes of twelve pitches and four instruments, made of harmonics: half a second each."""

    modality = "audio"
    rules = {"sample_rate >= 1100": "sample_rate must be at least 1100: the highest note has 415 Hz, and harmonics"}

    def __init__(
        self,
        *,
        sample_rate: PositiveInt = 8000,  # samples a second
        length: PositiveInt = 4000,  # samples
        labels: Literal["pitch", "instrument"] = "pitch",
        size: PositiveInt = 5_000,  # clips to train on
        held_out: PositiveInt = 500,  # clips in each of the validation and test splits
        seed: NonNegativeInt = 0,
    ):
        self.labels = labels
        self.sizes = {"train": size, "validation": held_out, "test": held_out}
        self.seed = seed
        classes = PITCHES if labels == "pitch" else tuple(INSTRUMENTS)
        self.spec = Spec("audio", (length,), value_range=(-1.0, 1.0), classes=classes, sample_rate=sample_rate)

    def load(self, split: SplitName) -> TensorSplit:
        generator = torch.Generator().manual_seed(mix(self.seed, _STREAMS[split]))
        count = self.sizes[split]
        pitch = torch.randint(len(PITCHES), (count,), generator=generator)
        instrument = torch.randint(len(INSTRUMENTS), (count,), generator=generator)
        loudness, phase = torch.rand(2, count, 1, generator=generator)  # (N, 1) each
        audio = torch.empty(count, *self.spec.shape, dtype=torch.int16)
        for rows in torch.arange(count).split(500):
            clips = notes(pitch[rows], instrument[rows], phase[rows], self.spec.shape[0], self.spec.sample_rate)
            audio[rows] = (LOUD * (0.5 + 0.5 * loudness[rows]) * clips * 32767).round().to(torch.int16)
        return TensorSplit({"audio": audio, "label": pitch if self.labels == "pitch" else instrument}, decode_audio)


def notes(pitch: Tensor, instrument: Tensor, phase: Tensor, length: int, sample_rate: int) -> Tensor:
    """(N, length) in [-1, 1]: `pitch` (N,) in semitones above the lowest, `phase` (N, 1) of a period."""
    time = torch.arange(length) / sample_rate  # (T,)
    frequency = 440 * 2 ** ((LOWEST + pitch.unsqueeze(1) - 69) / 12)  # (N, 1)
    most = max(len(amplitudes) for amplitudes, _, _ in INSTRUMENTS.values())
    padded = [[*amplitudes, *[0.0] * (most - len(amplitudes))] for amplitudes, _, _ in INSTRUMENTS.values()]
    amplitudes = torch.tensor(padded)[instrument]  # (N, most)
    sound = torch.zeros(len(pitch), length)
    for number in range(1, most + 1):
        is_heard = number * frequency < sample_rate / 2
        sound += amplitudes[:, number - 1 : number] * is_heard * (
            2 * math.pi * number * (frequency * time + phase)
        ).sin()  # fmt: skip
    sound /= amplitudes.sum(1, keepdim=True)
    rise = torch.tensor([rise for _, rise, _ in INSTRUMENTS.values()])[instrument].unsqueeze(1)
    fall = torch.tensor([1 / fall if fall else 0.0 for _, _, fall in INSTRUMENTS.values()])[instrument].unsqueeze(1)
    left = (length - 1 - torch.arange(length)) / sample_rate
    return sound * (time / rise).clamp(max=1) * (-fall * time).exp() * (left / FADE).clamp(max=1)


def decode_audio(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored 16-bit samples to [-1, 1]."""
    return {**rows, "audio": rows["audio"].float() / 32768}
