"""Facts about what sounds are compared by: pitch moves it, phase and sign do not, silence is finite."""

import math

import torch

from genai_cli.data.base import Spec
from genai_cli.metrics.sounds import NUM_BANDS, as_vectors, mel_bands, spectral_features

RATE = 8000


def tone(frequency: float, phase: float = 0.0, length: int = 4000) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(length) / RATE + phase)[None]


def test_a_tone_is_loudest_in_the_band_of_its_frequency():
    filters = mel_bands(512, RATE)
    for frequency in (220, 440, 1000, 3000):
        means = spectral_features(tone(frequency), RATE)[0, :NUM_BANDS]
        assert means.argmax() == filters[:, round(frequency / RATE * 512)].argmax()


def test_bands_are_evenly_spaced_in_mels():
    """4,000 Hz are 2,146 mels, and half as many are 1,114 Hz: half of the bands lie below it, not a quarter."""
    loudest = mel_bands(4096, RATE).argmax(1) * RATE / 4096
    assert (loudest < 1114).sum() == NUM_BANDS / 2
    assert loudest[-1] - loudest[-2] > 3 * (loudest[1] - loudest[0])


def test_phase_and_sign_are_not_heard():
    features = spectral_features(torch.cat([tone(440), tone(440, phase=1.0), -tone(440), tone(466)]), RATE)
    torch.testing.assert_close(features[2], features[0])
    turned, other = (features[row] - features[0] for row in (1, 3))
    assert turned.norm() < 0.1 * other.norm()


def test_ten_times_the_power_is_one_bel():
    once, louder = spectral_features(torch.cat([0.1 * tone(440), math.sqrt(0.1) * tone(440)]), RATE)[:, :NUM_BANDS]
    torch.testing.assert_close((louder - once).max(), torch.tensor(1.0), atol=1e-2, rtol=0)


def test_a_note_that_fades_differs_in_spread_from_one_that_lasts():
    fading = tone(440) * torch.linspace(1, 0.01, 4000)
    lasting, faded = spectral_features(torch.cat([tone(440), fading]), RATE)[:, NUM_BANDS:]
    band = spectral_features(tone(440), RATE)[0, :NUM_BANDS].argmax()
    assert lasting[band] < 0.01 < 0.3 < faded[band]


def test_silence_and_short_clips_are_finite():
    assert spectral_features(torch.zeros(2, 4000), RATE).isfinite().all()
    short = spectral_features(tone(440, length=40), RATE)
    assert short.isfinite().all() and short.shape == (1, 2 * (17 // 4))


def test_other_data_are_their_own_numbers():
    x = torch.randn(3, 4, 2)
    assert torch.equal(as_vectors(x, Spec("series", (4, 2))), x.flatten(1))
