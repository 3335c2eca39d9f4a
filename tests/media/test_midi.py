"""Facts about MIDI files: what is written is read back, by the bytes that the specification asks for."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genai_cli.media.midi import TICKS, Note, Score, midi_bytes, quantise, read_midi

SCALE = Score(tuple(Note(2 * i, 2, 60 + i, i % 2) for i in range(8)), 2)


def in_voices(notes: list[tuple[int, int, int, int]], steps_per_quarter: int = 4) -> Score:
    """Notes that no other of the same voice and pitch overlaps, voices numbered without a gap."""
    free: dict[tuple[int, int], int] = {}
    kept = []
    for start, length, pitch, voice in sorted(notes):
        if free.get((voice, pitch), 0) <= start:
            kept.append(Note(start, length, pitch, voice))
            free[voice, pitch] = start + length
    voices = sorted({note.voice for note in kept})
    renamed = [Note(note.start, note.length, note.pitch, voices.index(note.voice)) for note in kept]
    return Score(tuple(sorted(renamed)), steps_per_quarter)


notes = st.lists(
    st.tuples(st.integers(0, 200), st.integers(1, 600), st.integers(0, 127), st.integers(0, 14)), max_size=30
)


@given(notes)
def test_a_written_score_is_read_back(rows) -> None:
    score = in_voices(rows)
    assert quantise(read_midi(midi_bytes(score)), score.steps_per_quarter) == score


def test_the_bytes_are_those_of_the_specification() -> None:
    content = midi_bytes(Score((Note(0, 1, 60),), 1))
    assert content[:14] == b"MThd\x00\x00\x00\x06\x00\x01\x00\x02" + TICKS.to_bytes(2, "big")
    tempo, track = content[14:].split(b"MTrk")[1:]
    assert tempo[4:] == b"\x00\xff\x51\x03" + (666_666).to_bytes(3, "big") + b"\x00\xff\x2f\x00"
    # On at once, middle C; off after 480 ticks, which are 0x83 0x60 at seven bits a byte.
    assert track[4:] == b"\x00\x90\x3c\x50" + b"\x83\x60\x80\x3c\x00" + b"\x00\xff\x2f\x00"


def test_running_status_meta_events_and_zero_velocity_are_read() -> None:
    track = (
        b"\x00\xff\x03\x02ab" + b"\x00\xf0\x01\xf7" + b"\x00\xc0\x05" + b"\x00\x90\x40\x64" + b"\x60\x40\x00"
        b"\x00\x99\x24\x64" + b"\x00\x90\x41\x64" + b"\x00\xff\x2f\x00"
    )  # fmt: skip
    content = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60" + b"XYZW\x00\x00\x00\x01?" + b"MTrk"
    score = read_midi(content + len(track).to_bytes(4, "big") + track)
    assert score == Score((Note(0, 0x60, 0x40), Note(0x60, 1, 0x41)), 0x60)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not begin with MThd"),
        (b"RIFF" + bytes(40), "does not begin with MThd"),
        (midi_bytes(SCALE)[:-3], "ends within the chunk at byte"),
        (b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\xe8\x00", "film frames"),
        (b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk\x00\x00\x00\x02\x00\x90", "ends within an event"),
        (b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk\x00\x00\x00\x02\x00\x10", "belongs to no event"),
    ],
)
def test_a_broken_file_is_refused_in_words(content, words) -> None:
    with pytest.raises(ValueError, match=words):
        read_midi(content)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused(content) -> None:
    for head in (b"", b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk" + len(content).to_bytes(4, "big")):
        with contextlib.suppress(ValueError):
            read_midi(head + content)


def test_quantising_goes_to_the_nearest_step_and_loses_no_note() -> None:
    rough = Score((Note(0, 50, 60), Note(49, 1, 62), Note(151, 97, 64)), 96)
    assert quantise(rough, 2).notes == (Note(0, 1, 60), Note(1, 1, 62), Note(3, 2, 64))
    assert quantise(SCALE, 4).notes == tuple(Note(4 * i, 4, 60 + i, i % 2) for i in range(8))
