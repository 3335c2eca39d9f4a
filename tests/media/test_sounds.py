"""Music as it is heard and seen: the right pitches at the right times."""

import io
import wave

import numpy
import pytest
import torch

from genai_cli.media.midi import Note, Score
from genai_cli.media.rolls import ROW_HEIGHT, piano_roll, roll_sheet
from genai_cli.media.sounds import SAMPLE_RATE, synthesise, wav_bytes


def read_wav(content: bytes) -> tuple[numpy.ndarray, int]:
    with wave.open(io.BytesIO(content)) as file:
        assert file.getnchannels() == 1 and file.getsampwidth() == 2
        return numpy.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767, file.getframerate()


def loudest_frequency(sound: numpy.ndarray, rate: int) -> float:
    spectrum = numpy.abs(numpy.fft.rfft(sound * numpy.hanning(len(sound)), 8 * len(sound)))
    return float(numpy.fft.rfftfreq(8 * len(sound), 1 / rate)[spectrum.argmax()])


@pytest.mark.parametrize("pitch", [36, 57, 69, 84])
def test_a_note_sounds_at_its_frequency(pitch: int) -> None:
    sound, rate = read_wav(wav_bytes(synthesise(Score((Note(0, 4, pitch),), 4))))
    assert rate == SAMPLE_RATE
    assert loudest_frequency(sound, rate) == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=0.003)


def test_notes_sound_in_their_time() -> None:
    melody = Score((Note(0, 2, 60), Note(2, 2, 67)), 2)
    sound = synthesise(melody).numpy()
    second = int(2 * melody.seconds_per_step * SAMPLE_RATE)
    for part, pitch in ((sound[:second], 60), (sound[second + 2000 : 2 * second], 67)):
        assert loudest_frequency(part, SAMPLE_RATE) == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=0.005)


def test_sound_stays_in_range_and_silence_is_silent() -> None:
    chord = Score(tuple(Note(0, 8, 40 + 3 * i, i) for i in range(12)), 4)
    assert synthesise(chord).abs().max() <= 1
    assert synthesise(Score((), 4)).abs().max() == 0


def test_a_roll_shows_each_note_in_its_place() -> None:
    score = Score((Note(1, 2, 62, 0), Note(0, 4, 60, 1)), 4)
    picture = piano_roll(score, low=58, high=63, num_steps=4, step_width=5)
    assert picture.shape == (3, 6 * ROW_HEIGHT, 20) and picture.dtype == torch.uint8
    row = picture[:, (63 - 62) * ROW_HEIGHT]
    is_note = (row[:, 1:] != row[:, 1:2]).any(0)  # its first step is empty, but for a bar line
    assert is_note[4:13].all() and not is_note[14:].any()
    assert roll_sheet([score] * 3).shape[0] == 3 and roll_sheet([Score((), 4)]).shape[0] == 3
