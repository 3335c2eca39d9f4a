"""Pictures of series and sounds: what is drawn stands where it should, and what is not finite draws nothing."""

import csv
import io

import torch

from genai_cli.data.base import Spec
from genai_cli.media import continuations
from genai_cli.media.continuations import BAND, INK, REST, Given, plot_continuations
from genai_cli.media.files import series_csv_bytes, write_samples
from genai_cli.media.sheets import SILENCE, sheet, sound
from genai_cli.media.signals import COLOURS, GIVEN, MARGIN, PANEL, WAVE, plot_series, plot_sounds, spectrogram

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


def test_no_two_columns_have_colours_that_are_close():
    colours = torch.tensor(COLOURS).double()
    assert torch.pdist(colours).min() > 55


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


# -- what goes on from something given ---------------------------------------------------------------------------------


def pixels_of(picture: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    """(N,) the columns, from the left of the first panel, of the pixels in it that are close to a colour."""
    panel = picture[:, continuations.MARGIN[1] :, continuations.MARGIN[0] :]
    panel = panel[:, : continuations.PANEL[1], : continuations.PANEL[0]].int()
    return ((panel - torch.tensor(colour).view(3, 1, 1)).abs().sum(0) < 20).nonzero()[:, 1]


def test_what_was_given_and_what_was_drawn_are_told_apart():
    """Of twenty series that go on from the first half of one: black, then a band, and orange what really came."""
    values = torch.zeros(1, 25, 1)
    kept = (torch.arange(25) < 12).view(1, 25, 1)
    series = torch.where(kept, values, torch.linspace(1, 3, 20).view(20, 1, 1)).clone()
    picture = plot_continuations(series, ("a",), Given(values, kept))
    middle = continuations.PANEL[0] * 11.5 / 24
    black, band, orange = (pixels_of(picture, colour) for colour in ((0, 0, 0), BAND, REST))
    assert black.max() < middle < orange.min() + 15 and band.min() > middle - 15
    assert orange.max() > 0.95 * continuations.PANEL[0] and len(band) > 5000
    few = plot_continuations(series[:3], ("a",), Given(values, kept))
    assert len(pixels_of(few, BAND)) < 1000 < 10 * len(pixels_of(few, INK))


def test_many_columns_and_many_series_are_shown_as_far_as_there_is_room():
    given = Given(torch.zeros(5, 6, 3), torch.zeros(5, 6, 3, dtype=torch.bool))
    picture = plot_continuations(torch.rand(10, 6, 3), ("a", "b", "c"), given)
    assert picture.shape[1] == continuations.MARGIN[1] + 4 * continuations.PITCH[1]  # four series of three columns
    wide = Given(torch.full((1, 6, 40), torch.nan), torch.zeros(1, 6, 40, dtype=torch.bool))
    assert plot_continuations(torch.rand(2, 6, 40), tuple(map(str, range(40))), wide).shape == picture.shape


def test_a_given_sound_is_grey_until_it_ends():
    picture = plot_sounds(0.9 * (-1.0) ** torch.arange(2000).unsqueeze(0), 4000, num_given=1000)
    waveform = picture[:, 24:110, MARGIN[0] : MARGIN[0] + WAVE[0]].int()
    grey = ((waveform - torch.tensor(GIVEN).view(3, 1, 1)).abs().sum(0) < 20).any(0).nonzero().flatten()
    assert grey.max() <= WAVE[0] / 2 + 2 and len(grey) > 0.7 * WAVE[0] / 2


def test_a_table_says_which_steps_were_given():
    kept = torch.tensor([[True, True, False], [False, True, True]])
    given = Given(torch.zeros(2, 3, 2), kept.unsqueeze(2).expand(2, 3, 2))
    rows = list(csv.DictReader(io.StringIO(series_csv_bytes(torch.zeros(4, 3, 2), SERIES, given=given).decode())))
    assert [row["kept"] for row in rows] == list("110011") * 2
