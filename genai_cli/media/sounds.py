"""Music to be heard: notes as sums of decaying sines, without samples or a synthesiser program, and WAV files."""

import io
import wave

import numpy
import torch
from torch import Tensor

from genai_cli.media.midi import Score

SAMPLE_RATE = 16_000
HARMONICS = (1.0, 0.45, 0.22, 0.1, 0.05)  # amplitude of each multiple of the pitch
DECAY = 1.2  # seconds in which the fundamental falls to 1/e; a harmonic falls that many times faster
ATTACK, RELEASE = 0.012, 0.06  # seconds


def synthesise(score: Score, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """(T,) float32 in [-1, 1], with a short tail after the last note. An empty score is a tenth of a second of silence.

    A note of pitch p has the frequency 440 * 2^((p - 69) / 12).
    """
    step = score.seconds_per_step
    total = int((score.length * step + 0.1) * sample_rate) + 1
    sound = torch.zeros(total, dtype=torch.float32)
    for note in score.notes:
        first = int(note.start * step * sample_rate)
        tone = _tone(note.pitch, note.length * step + RELEASE, sample_rate)[: total - first]
        sound[first : first + len(tone)] += tone
    loudest = float(sound.abs().max())
    return sound * (0.9 / loudest) if loudest > 0 else sound


def _tone(pitch: int, seconds: float, sample_rate: int) -> Tensor:
    """(T,) of one note, with a soft beginning and end."""
    time = torch.arange(int(seconds * sample_rate), dtype=torch.float32) / sample_rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    tone = torch.zeros_like(time)
    for n, amplitude in enumerate(HARMONICS, start=1):
        if n * frequency < sample_rate / 2:
            tone += amplitude * torch.sin(2 * torch.pi * n * frequency * time) * torch.exp(-n * time / DECAY)
    return tone * (time / ATTACK).clamp(max=1) * ((seconds - time) / RELEASE).clamp(0, 1)


def wav_bytes(sound: Tensor, *, sample_rate: int = SAMPLE_RATE) -> bytes:
    """(T,) in [-1, 1] as a WAV file: one channel, 16 bits."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((sound.clamp(-1, 1) * 32767).round().cpu().numpy().astype(numpy.dtype("<i2")).tobytes())
    return content.getvalue()
