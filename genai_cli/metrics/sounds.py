"""What clips of sound are compared by: how loud each band of pitches is, and how much that changes over a clip.

Samples themselves say little: a phase that is turned moves every one of them, and no ear hears it.
"""

import math

import torch
from torch import Tensor

from genai_cli.data.base import Spec

NUM_BANDS = 32  # fewer where a clip is too short to tell so many apart
WINDOW = 0.064  # seconds, rounded up to a power of two of samples
SILENCE = 1e-6  # power below which nothing is told apart: 60 decibels under a full wave
DESCRIPTION = "mean and spread over time of the bels (tens of decibels) in bands of the mel scale"


def spectral_features(sound: Tensor, sample_rate: int) -> Tensor:
    """(N, T) in [-1, 1] to (N, 2 * bands), in bels: the mean of each band over time, and its standard deviation."""
    length = sound.shape[1]
    size = min(2 ** math.ceil(math.log2(WINDOW * sample_rate)), 2 ** int(math.log2(length)))
    window = torch.hann_window(size, dtype=torch.float64)
    filters = mel_bands(size, sample_rate)  # (bands, size // 2 + 1)
    features = []
    for part in sound.double().cpu().split(256):
        power = torch.stft(part, size, hop_length=max(1, size // 4), window=window, center=False, return_complex=True)
        bels = (filters @ power.abs().square() / window.square().sum() + SILENCE).log10()  # (n, bands, frames)
        features.append(torch.cat([bels.mean(2), bels.std(2, correction=0)], 1))
    return torch.cat(features).float()


def as_vectors(x: Tensor, spec: Spec) -> Tensor:
    """(N, *shape) to (N, D), by which what is no image is compared: the numbers themselves, or the bands of a sound."""
    return spectral_features(x, spec.sample_rate) if spec.modality == "audio" else x.float().cpu().flatten(1)


def mel_bands(size: int, sample_rate: int) -> Tensor:
    """(bands, size // 2 + 1): triangles over frequencies, evenly spaced on the mel scale, 2595 log10(1 + f / 700)."""
    frequencies = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    mels = 2595 * (1 + frequencies / 700).log10()
    bands = max(1, min(NUM_BANDS, (size // 2 + 1) // 4))
    centres = torch.linspace(0, float(mels[-1]), bands + 2, dtype=torch.float64)
    spacing = centres[1]
    return (1 - (mels - centres[1:-1, None]).abs() / spacing).clamp(min=0)
