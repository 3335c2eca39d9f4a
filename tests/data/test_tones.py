"""Notes made of harmonics: as high as their label says, as loud as their envelope."""

import pytest
import torch

from genai_cli.data.base import DataError
from genai_cli.data.tones import INSTRUMENTS, LOUD, LOWEST, Tones


def test_a_note_is_as_high_as_its_label_says():
    part = Tones(held_out=60).load("test")
    rows = part.fetch(torch.arange(60))
    assert rows["audio"].shape == (60, 4000) and rows["audio"].abs().max() <= LOUD + 1e-4
    power = torch.fft.rfft(rows["audio"] * torch.hann_window(4000)).abs()  # bins of 2 Hz
    for spectrum, label in zip(power, rows["label"].tolist(), strict=True):
        frequency = 440 * 2 ** ((LOWEST + label - 69) / 12)
        assert abs(2 * spectrum[:300].argmax().item() - frequency) <= 4  # below 600 Hz: the fundamental


def test_a_struck_note_dies_away_and_a_blown_one_does_not():
    part = Tones(labels="instrument", held_out=60).load("test")
    rows = part.fetch(torch.arange(60))
    late = rows["audio"][:, 3000:3800].abs().amax(1) / rows["audio"].abs().amax(1)
    names = list(INSTRUMENTS)
    for share, label in zip(late.tolist(), rows["label"].tolist(), strict=True):
        assert (share < 0.2) == (names[label] in ("bell", "string"))


def test_a_rate_that_cannot_hold_the_notes_is_refused():
    with pytest.raises(DataError, match="sample_rate=500"):
        Tones(sample_rate=500)
