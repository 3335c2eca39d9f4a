"""Notes made of harmonics: as high as their label says, as loud as their envelope."""

import pytest
import torch

from genai_cli import cli
from genai_cli.data.tones import INSTRUMENTS, LOUD, LOWEST, Tones, notes
from genai_cli.errors import ExitCode


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


def test_a_rate_that_cannot_hold_the_notes_is_refused_before_any_work(capsys):
    assert cli.run(["train", "model=wavenet", "dataset=tones", "dataset.sample_rate=1000"]) == ExitCode.CONFIGURATION
    assert "sample_rate must be at least 1100" in capsys.readouterr().err
    top = notes(torch.tensor([11]), torch.tensor([0]), torch.zeros(1, 1), 550, 1100)  # G#4, 415 Hz, half a second
    assert torch.fft.rfft(top[0]).abs().argmax() * 2 == pytest.approx(415.3, abs=2)
