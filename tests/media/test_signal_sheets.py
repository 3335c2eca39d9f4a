"""Pictures of series and sounds: what is drawn stands where it should, and what is not finite draws nothing."""

import torch

from genai_cli.data.base import Spec
from genai_cli.media.files import write_samples
from genai_cli.media.sheets import SILENCE, sheet, sound
from genai_cli.media.signals import COLOURS, MARGIN, PANEL, plot_series, spectrogram

SERIES = Spec("series", (24, 2), columns=("a", "b"))
AUDIO = Spec("audio", (800,), (-1.0, 1.0), sample_rate=4000)


def ink(picture: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    """(H, W) bool: the pixels of a panel that are close to a colour."""
    distance = (picture.int() - torch.tensor(colour).view(3, 1, 1)).abs().sum(0)
    return distance[MARGIN[1] : MARGIN[1] + PANEL[1], MARGIN[0] : MARGIN[0] + PANEL[0]] < 60


def test_a_rising_line_rises_and_a_falling_one_falls():
    ramp = torch.linspace(0, 1, 24)
    picture = plot_series(torch.stack([ramp, 1 - ramp], 1).unsqueeze(0), ("a", "b"))
    for column, sign in ((0, -1), (1, 1)):
        rows, columns = ink(picture, COLOURS[column]).nonzero().double().T
        assert torch.corrcoef(torch.stack([rows, columns]))[0, 1] * sign > 0.9


def test_what_is_not_finite_leaves_a_gap():
    values = torch.zeros(1, 24, 1)
    values[0, 8:16] = torch.nan
    drawn = ink(plot_series(values, ("a",)), COLOURS[0]).any(0)
    assert drawn[: PANEL[0] // 4].any() and drawn[-PANEL[0] // 4 :].any()
    assert not drawn[int(PANEL[0] * 0.4) : int(PANEL[0] * 0.6)].any()
    assert plot_series(torch.full((1, 24, 1), torch.nan), ("a",)).shape == plot_series(values, ("a",)).shape


def test_a_spectrogram_is_brightest_where_the_frequency_is():
    time = torch.arange(4000) / 4000
    for hertz in (250, 1500):
        bright = spectrogram((2 * torch.pi * hertz * time).sin(), 40, 100).sum(0).float()
        row = bright.mean(1).argmax().item()
        assert abs((1 - row / 100) * 2000 - hertz) < 60


def test_series_are_written_as_a_table_and_audio_as_sounds(tmp_path):
    write_samples(torch.rand(3, 24, 2), SERIES, tmp_path / "series")
    assert sorted(path.name for path in (tmp_path / "series").iterdir()) == ["samples.csv", "sheet.png"]
    assert len((tmp_path / "series" / "samples.csv").read_text().splitlines()) == 1 + 3 * 24
    write_samples(torch.rand(2, 800), AUDIO, tmp_path / "audio")
    assert sorted(path.name for path in (tmp_path / "audio").iterdir()) == ["00000.wav", "00001.wav", "sheet.png"]
    assert sheet(torch.zeros(2, 800), AUDIO).dtype == torch.uint8


def test_clips_are_heard_one_after_the_other():
    heard, rate = sound(torch.ones(3, 800), AUDIO)
    pause = round(SILENCE * 4000)
    assert rate == 4000 and heard.shape == (3 * (800 + pause),)
    assert heard[:800].eq(1).all() and heard[800 : 800 + pause].eq(0).all()
