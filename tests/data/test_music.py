"""The data sets of music: the published splits, pieces that obey their rules, and folders that may hold anything."""

import itertools
import json
import lzma

import pytest
import torch

from genai_cli.data import jsb
from genai_cli.data.base import DataError
from genai_cli.data.chorales import RANGES, Chorales
from genai_cli.data.jsb import Jsb
from genai_cli.data.midi import Midi
from genai_cli.data.pieces import frames_of_score, score_of_frames
from genai_cli.media.midi import Note, Score, midi_bytes

PIECES = {
    key: [[[72, 67, 60, 48]] * 4 + [[74 + i, -1, 60, 50]] * 4 for i in range(count)]
    for key, count in {"train": 3, "valid": 2, "test": 1}.items()
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small file in the place and form of the original."""
    import hashlib

    content = json.dumps(PIECES).encode()
    (tmp_path / "jsb_chorales").mkdir()
    (tmp_path / "jsb_chorales" / "Jsb16thSeparated.json.xz").write_bytes(lzma.compress(content))
    monkeypatch.setattr(jsb, "SHA256", hashlib.sha256(content).hexdigest())
    return tmp_path


@pytest.mark.parametrize("tokenizer", ["voices", "events"])
def test_jsb_reads_the_splits_of_the_file(root, tokenizer) -> None:
    data = Jsb(root=str(root), length=8, tokenizer=tokenizer, steps_per_quarter=4, transpose=0)
    assert (data.spec.modality, data.spec.shape) == ("music", (8,))
    for split, key in jsb.KEYS.items():
        frames = [frames_of_score(score, 4).tolist() for score in data.scores(split)]
        assert frames == PIECES[key]
        windows = data.load(split)
        assert (windows.tokens == 0).sum() == len(PIECES[key]) + 1
        assert windows.fetch(torch.tensor([0]))["tokens"].shape == (1, 9)


def test_training_pieces_come_in_other_keys(root) -> None:
    def count(transpose: int, split: str) -> int:
        windows = Jsb(root=str(root), length=8, transpose=transpose).load(split)
        return int((windows.tokens == 0).sum()) - 1

    assert [count(n, "train") for n in (0, 1, 2)] == [3, 9, 15]
    assert count(2, "test") == 1


def test_a_coarser_grid_takes_every_second_step(root) -> None:
    (score,) = Jsb(root=str(root), steps_per_quarter=2).scores("test")
    assert frames_of_score(score, 4).tolist() == PIECES["test"][0][::2]


def test_missing_and_altered_files_are_named(root) -> None:
    with pytest.raises(DataError, match=r"jsb_chorales/Jsb16thSeparated.json .*dataset.download=true"):
        Jsb(root=str(root / "nowhere")).load("train")
    (root / "jsb_chorales" / "Jsb16thSeparated.json.xz").write_bytes(lzma.compress(b"{}"))
    with pytest.raises(DataError, match="is not the original file"):
        Jsb(root=str(root)).load("train")


def test_equal_pitches_in_a_row_are_one_note() -> None:
    score = score_of_frames([[60, 50], [60, -1], [62, 50]], 4)
    assert score.notes == (Note(0, 1, 50, 1), Note(0, 2, 60, 0), Note(2, 1, 50, 1), Note(2, 1, 62, 0))


# -- chorales by rule ---------------------------------------------------------------------------------------------


def test_chorales_obey_the_rules() -> None:
    """No voice out of its range, crossed or in parallel fifths or octaves; V I at the end."""
    for score in Chorales(size=12).scores("train"):
        chords = torch.unique_consecutive(frames_of_score(score, 4), dim=0)  # (T, 4)
        for voice, (low, high) in enumerate(RANGES):
            assert low <= chords[:, voice].min() and chords[:, voice].max() <= high
        assert (chords[:, :-1] > chords[:, 1:]).all()
        for upper in range(4):
            for lower in range(upper + 1, 4):
                interval = (chords[:, upper] - chords[:, lower]) % 12
                moved = (chords.diff(dim=0)[:, [upper, lower]] != 0).all(1)
                same = (interval[1:] == interval[:-1]) & ((interval[1:] == 0) | (interval[1:] == 7))
                assert not (moved & same).any()
        assert (chords[-1, 3] - chords[-2, 3]) % 12 == 5  # the bass goes from V to I
        assert score.length == 4 * 16


def test_chorales_are_a_function_of_the_seed() -> None:
    assert Chorales(size=2).scores("train") == Chorales(size=3).scores("train")[:2]
    assert Chorales(size=2, seed=1).scores("train") != Chorales(size=2).scores("train")
    assert Chorales(size=2, held_out=2).scores("test") != Chorales(size=2).scores("train")


# -- folders of MIDI files ----------------------------------------------------------------------------------------


def fill(folder, count: int) -> None:
    for i in range(count):
        score = Score(tuple(Note(4 * n, 4, 50 + (7 * n + i) % 30, n % 3) for n in range(30)), 4)
        (folder / f"{i:03d}.mid").write_bytes(midi_bytes(score))


def pieces(folder, split: str) -> set[tuple[int, ...]]:
    tokens = Midi(path=str(folder), length=8, transpose=0, validation=0.3, test=0.3).load(split).tokens
    ends = (tokens == 0).nonzero().flatten().tolist()
    return {tuple(tokens[start:stop].tolist()) for start, stop in itertools.pairwise(ends)}


def test_a_folder_is_split_by_content(tmp_path) -> None:
    """30 pieces, 10 of them twice: copies fall together, and names decide nothing."""
    fill(tmp_path, 40)
    splits = ("train", "validation", "test")
    before = {split: pieces(tmp_path, split) for split in splits}
    assert sum(map(len, before.values())) == len(set().union(*before.values())) == 30
    (tmp_path / "000.mid").rename(tmp_path / "zzz.MID")
    assert {split: pieces(tmp_path, split) for split in splits} == before


def test_broken_files_are_named(tmp_path) -> None:
    fill(tmp_path, 40)
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    data = Midi(path=str(tmp_path), length=8)
    data.load("train")
    assert "1 of 41 MIDI files were left out" in data.notes[0] and "bad.mid: it is not a MIDI file" in data.notes[0]
    with pytest.raises(DataError, match=r"1 of the 41 .*dataset.max_broken=0"):
        Midi(path=str(tmp_path), max_broken=0.0).load("train")


def test_no_folder_and_no_files_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        Midi(path=str(tmp_path / "none"))
    with pytest.raises(DataError, match="holds no MIDI files"):
        Midi(path=str(tmp_path)).load("train")
