"""Recordings of a folder: every coding reads as the same numbers, broken files are named, files stay in one split."""

import struct
import wave

import numpy
import pytest
import torch

from genai_cli.data.base import DataError
from genai_cli.data.recordings import BrokenSound, read_wav, resample
from genai_cli.data.wav import Wav, cut
from genai_cli.media.sounds import wav_bytes

SOUND = numpy.linspace(-0.9, 0.9, 64)


def wav_of(
    data: bytes, *, kind: int = 1, bits: int = 16, channels: int = 1, rate: int = 8000, extensible=False
) -> bytes:
    frame = channels * bits // 8
    described = struct.pack("<HHIIHH", 0xFFFE if extensible else kind, channels, rate, rate * frame, frame, bits)
    if extensible:
        described += struct.pack("<HHIH", 22, bits, 0, kind) + bytes(14)
    chunks = b"fmt " + struct.pack("<I", len(described)) + described + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def coded(kind: int, bits: int) -> bytes:
    if kind == 3:
        return SOUND.astype(f"<f{bits // 8}").tobytes()
    levels = numpy.round(SOUND * 2 ** (bits - 1)).astype(numpy.int64)
    if bits == 8:
        return (levels + 128).astype(numpy.uint8).tobytes()
    return b"".join(int(level).to_bytes(bits // 8, "little", signed=True) for level in levels)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
def test_every_coding_reads_as_the_same_numbers(tmp_path, kind, bits, extensible):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_of(coded(kind, bits), kind=kind, bits=bits, extensible=extensible))
    sound, rate = read_wav(path)
    assert rate == 8000
    torch.testing.assert_close(sound, torch.from_numpy(SOUND).float(), atol=max(2.0 ** (1 - bits), 2.0**-23), rtol=0)


def test_what_is_written_reads_back_and_so_does_the_standard_library(tmp_path):
    sound = torch.linspace(-1, 1, 100)
    (tmp_path / "a.wav").write_bytes(wav_bytes(sound, sample_rate=8000))
    torch.testing.assert_close(read_wav(tmp_path / "a.wav")[0], sound, atol=5e-5, rtol=0)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getframerate() == 8000


def test_channels_are_mixed(tmp_path):
    frames = numpy.stack([SOUND, -SOUND / 2], 1)
    data = numpy.round(frames * 2**15).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(wav_of(data, channels=2))
    torch.testing.assert_close(read_wav(tmp_path / "a.wav")[0], torch.from_numpy(SOUND / 4).float(), atol=4e-5, rtol=0)


@pytest.mark.parametrize(("rate", "to"), [(8000, 5000), (8000, 12_000), (44_100, 8000)])
def test_a_tone_stays_the_same_tone_at_another_rate(rate, to):
    time = torch.arange(rate // 4) / rate
    expected = (2 * torch.pi * 440 * torch.arange(round(to / 4)) / to).sin()
    found = resample((2 * torch.pi * 440 * time).sin(), rate, to)
    assert len(found) == len(expected)
    middle = slice(len(found) // 8, -len(found) // 8)
    torch.testing.assert_close(found[middle], expected[middle], atol=2e-3, rtol=0)


def test_what_the_lower_rate_cannot_hold_is_cut_off():
    tone = (2 * torch.pi * 3500 * torch.arange(4000) / 8000).sin()
    assert resample(tone, 8000, 5000)[200:-200].abs().max() < 0.01


def test_long_sounds_give_several_clips_and_short_ones_are_followed_by_silence():
    assert cut(torch.ones(10), 4).shape == (2, 4)
    assert cut(torch.ones(3), 4).tolist() == [[32767, 32767, 32767, 0]]


BROKEN = {
    "empty": (b"", "0 bytes"),
    "other": (b"OggS" + bytes(40), "not a WAV file"),
    "cut_off": (wav_of(coded(1, 16))[:-20], "cut off: 108 of 128 bytes"),
    "headless": (b"RIFF\x04\0\0\0WAVE", "lacks the description"),
    "packed": (wav_of(bytes(40), kind=2, bits=4), "that cannot be"),
    "law": (wav_of(bytes(40), kind=7, bits=8), "format 7 of 8 bits"),
    "not_finite": (wav_of(numpy.full(9, numpy.nan, "<f4").tobytes(), kind=3, bits=32), "not finite"),
    "silent": (wav_of(b""), "no samples"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_says_why(tmp_path, name):
    content, words = BROKEN[name]
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(BrokenSound, match=words):
        read_wav(tmp_path / "a.wav")


def fill(folder, count: int, *, start: int = 0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        generator = torch.Generator().manual_seed(number)
        sound = 2 * torch.rand(50 + number % 7, generator=generator) - 1
        (folder / f"{number:03d}.wav").write_bytes(wav_bytes(sound, sample_rate=8000))
    return folder


OPTIONS = {"length": 20, "validation": 0.2, "test": 0.2}


def test_labels_are_the_names_of_sub_folders_and_clips_of_a_file_stay_together(tmp_path):
    fill(tmp_path / "high", 20)
    fill(tmp_path / "low", 20, start=20)
    dataset = Wav(path=str(tmp_path), **OPTIONS)
    assert dataset.spec.classes == ("high", "low") and dataset.spec.sample_rate == 8000
    files: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        part = dataset.load(split)
        rows = part.fetch(torch.arange(len(part)))
        files[split] = {part.name_of(i) for i in range(len(part))}
        assert len(part) == 2 * len(files[split])  # of about 53 samples, two clips of 20
        assert rows["audio"].abs().max() <= 1
        assert [part.name_of(i).startswith("low") for i in range(len(part))] == (rows["label"] == 1).tolist()
    assert sum(map(len, files.values())) == len(set.union(*files.values())) == 40


def test_few_broken_files_are_named_and_left_out_and_many_stop_it(tmp_path):
    fill(tmp_path, 40)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"1 of the 41 .wav files(.|\n)*max_broken=0.01(.|\n)*bad.wav: not a WAV file"):
        Wav(path=str(tmp_path), **OPTIONS).load("train")
    dataset = Wav(path=str(tmp_path), **OPTIONS, max_broken=0.1)
    dataset.load("train")
    assert "1 of 41 .wav files were left out" in dataset.notes[0] and "bad.wav" in dataset.notes[0]


def test_a_folder_without_sounds_and_one_too_large_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.wav files: put some there"):
        Wav(path=str(tmp_path), **OPTIONS).load("train")
    with pytest.raises(DataError, match="not a folder"):
        Wav(path=str(tmp_path / "gone"))
    fill(tmp_path, 3)
    with pytest.raises(DataError, match="memory_limit=1 megabytes"):
        Wav(path=str(tmp_path), length=600_000, memory_limit=1).load("train")
