"""Notes, and Standard MIDI Files that hold them (MIDI 1.0 specification, 1996): a small writer and a reader.

What is written opens in any player; `read_midi(midi_bytes(score))` gives the same notes back.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

TICKS = 480  # of a quarter note, in files that are written
DRUMS = 9  # the channel whose pitches are percussion instruments
VELOCITY = 80
QUARTERS_PER_MINUTE = 90


@dataclass(frozen=True, order=True)
class Note:
    """A note that sounds from step `start` for `length` steps; `pitch` as in MIDI, 60 the middle C."""

    start: int
    length: int
    pitch: int
    voice: int = 0


@dataclass(frozen=True)
class Score:
    """Notes in the order of their starts, and how long a step is."""

    notes: tuple[Note, ...]
    steps_per_quarter: int

    @property
    def length(self) -> int:
        """Steps until the last note ends."""
        return max((note.start + note.length for note in self.notes), default=0)

    @property
    def seconds_per_step(self) -> float:
        return 60 / QUARTERS_PER_MINUTE / self.steps_per_quarter


def quantise(score: Score, steps_per_quarter: int) -> Score:
    """The score on a grid of that many steps a quarter: starts and ends go to the nearest, no note vanishes."""
    notes = []
    for note in score.notes:
        start, stop = (
            (2 * time * steps_per_quarter + score.steps_per_quarter) // (2 * score.steps_per_quarter)
            for time in (note.start, note.start + note.length)
        )
        notes.append(replace(note, start=start, length=max(1, stop - start)))
    return Score(tuple(sorted(notes)), steps_per_quarter)


def midi_bytes(score: Score) -> bytes:
    """A file of format 1: a track with the tempo, then one for each voice. Steps must divide 480 ticks a quarter."""
    if TICKS % score.steps_per_quarter:
        raise ValueError(f"{score.steps_per_quarter} steps a quarter do not divide {TICKS} ticks")
    voices = sorted({note.voice for note in score.notes})
    tempo = b"\x00\xff\x51\x03" + (60_000_000 // QUARTERS_PER_MINUTE).to_bytes(3, "big")
    tracks = [tempo] + [_events([note for note in score.notes if note.voice == voice], score) for voice in voices]
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), TICKS)
    return header + b"".join(_chunk(track + b"\x00\xff\x2f\x00") for track in tracks)


def _events(notes: list[Note], score: Score) -> bytes:
    ticks = TICKS // score.steps_per_quarter
    events = []  # (tick, 0 off or 1 on, pitch, channel): where one note ends and the next begins, first the end
    for note in notes:
        channel = note.voice % 15 + (note.voice % 15 >= DRUMS)
        events.append((note.start * ticks, 1, note.pitch, channel))
        events.append(((note.start + note.length) * ticks, 0, note.pitch, channel))
    now, content = 0, b""
    for tick, is_on, pitch, channel in sorted(events):
        content += _variable_length(tick - now) + bytes([(0x90 if is_on else 0x80) | channel, pitch, VELOCITY * is_on])
        now = tick
    return content


def _chunk(content: bytes) -> bytes:
    return b"MTrk" + struct.pack(">I", len(content)) + content


def _variable_length(number: int) -> bytes:
    """Seven bits a byte, the first bit set on all but the last."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(0x80 | (number & 0x7F))
    return bytes(reversed(parts))


def read_midi(content: bytes) -> Score:
    """The notes of a file, drums left out; a voice for each track and channel that has notes, a step for each tick.

    Raises ValueError, saying where, for what is no MIDI file or ends too early.
    """
    if content[:4] != b"MThd" or len(content) < 14:
        raise ValueError("it is not a MIDI file: it does not begin with MThd")
    length, _, _, division = struct.unpack(">IHHH", content[4:14])
    if division & 0x8000 or division == 0:
        raise ValueError("its times are in film frames, not in parts of a quarter note")
    found: dict[tuple[int, int], list[Note]] = {}
    position, track = 8 + length, 0
    while position + 8 <= len(content):
        kind, size = content[position : position + 4], int.from_bytes(content[position + 4 : position + 8], "big")
        if position + 8 + size > len(content):
            raise ValueError(f"it ends within the chunk at byte {position:,}")
        if kind == b"MTrk":
            for channel, note in _TrackReader(content, position + 8, position + 8 + size).notes():
                found.setdefault((track, channel), []).append(note)
            track += 1
        position += 8 + size
    voices = [found[key] for key in sorted(found)]
    notes = sorted(replace(note, voice=voice) for voice, members in enumerate(voices) for note in members)
    return Score(tuple(notes), division)


class _TrackReader:
    """The events of one track, between two places of a file."""

    def __init__(self, content: bytes, start: int, stop: int):
        self.content, self.position, self.stop = content, start, stop

    def notes(self) -> Iterator[tuple[int, Note]]:
        """(channel, note) pairs; a note that is never ended lasts until the track does."""
        now, status = 0, 0
        sounding: dict[tuple[int, int], list[int]] = {}  # (channel, pitch) -> starts, the oldest first
        while self.position < self.stop:
            now += self._number()
            first = self._byte()
            if first & 0x80:
                status = first
            else:
                self.position -= 1  # running status: the event is of the last kind
            if status in (0xF0, 0xF7, 0xFF):  # system exclusive and meta events: skipped
                self.position += status == 0xFF
                size = self._number()
                self.position += size
                continue
            kind, channel = status & 0xF0, status & 0x0F
            if kind not in (0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0):
                raise ValueError(f"byte {self.position:,} belongs to no event")
            pitch = self._byte()
            velocity = 0 if kind in (0xC0, 0xD0) else self._byte()
            if (pitch | velocity) & 0x80:
                raise ValueError(f"byte {self.position:,} is no number up to 127")
            if kind not in (0x80, 0x90) or channel == DRUMS:
                continue
            if kind == 0x90 and velocity > 0:
                sounding.setdefault((channel, pitch), []).append(now)
            elif sounding.get((channel, pitch)):
                start = sounding[channel, pitch].pop(0)
                yield channel, Note(start, max(1, now - start), pitch)
        for (channel, pitch), starts in sounding.items():
            for start in starts:
                yield channel, Note(start, max(1, now - start), pitch)

    def _byte(self) -> int:
        if self.position >= self.stop:
            raise ValueError(f"the track that ends at byte {self.stop:,} ends within an event")
        self.position += 1
        return self.content[self.position - 1]

    def _number(self) -> int:
        """A number of variable length."""
        number, byte = 0, 0x80
        while byte & 0x80:
            byte = self._byte()
            number = number << 7 | (byte & 0x7F)
        return number
