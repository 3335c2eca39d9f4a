"""Your own recordings: `genai train model=wavenet dataset=wav dataset.path=sounds dataset.sample_rate=8000`.

Every .wav file below the folder is mixed to one channel, brought to one rate and cut into clips of `length` samples; a
shorter one is followed by silence. The names of the sub-folders are the labels. Broken files are named, and more than a
few of them stop it. Which split a file belongs to follows from its content, so that duplicates never straddle
splits and a new file moves no other.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Dataset, Spec, Split, SplitName, TensorSplit
from genai_cli.data.folder import class_names, judge, label_name, printable
from genai_cli.data.pictures import file_paths
from genai_cli.data.recordings import BrokenSound, read_wav, resample
from genai_cli.data.shares import share_of_digest, split_of
from genai_cli.data.tones import decode_audio
from genai_cli.rules import FolderName, Fraction, PositiveInt

SUFFIXES = (".wav", ".wave")


@dataclass(frozen=True)
class Recording:
    """A readable file."""

    name: str  # path below the folder, with "/"
    digest: str  # of its clips
    clips: Tensor  # (N, length) int16


class Wav(Dataset):
    """Your own .wav files in clips of one length, labels from sub-folders: `dataset.path=FOLDER`."""

    modality = "audio"
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        path: FolderName,
        sample_rate: PositiveInt = 8000,  # samples a second, that all files are brought to
        length: PositiveInt = 4000,  # samples of a clip
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
        max_broken: Fraction = 0.01,  # the share of files that may be unreadable
        memory_limit: PositiveInt = 1000,  # megabytes of clips, two bytes a sample
    ):
        self.folder = Path(path).expanduser()
        self.sample_rate, self.length = sample_rate, length
        self.validation, self.test = validation, test
        self.max_broken, self.memory_limit = max_broken, memory_limit
        if not self.folder.is_dir():
            raise DataError(f"dataset.path={path} is not a folder: give one that holds .wav files")
        self.listing = list(file_paths(self.folder, SUFFIXES))
        self.classes = class_names([name for name, reason in self.listing if reason is None])
        self.spec = Spec(
            "audio", (length,), value_range=(-1.0, 1.0), classes=tuple(map(printable, self.classes)),
            sample_rate=sample_rate,
        )  # fmt: skip

    def load(self, split: SplitName) -> Split:
        recordings = [recording for recording in self._recordings if self._split_of(recording) == split]
        if not recordings:
            raise DataError(
                f"the {split} split of the {len(self._recordings)} .wav files in {self.folder} is empty: "
                "add files, or change the shares, such as dataset.validation=0.2 dataset.test=0.2"
            )
        tensors = {"audio": torch.cat([recording.clips for recording in recordings])}
        if self.classes:
            index = {name: i for i, name in enumerate(self.classes)}
            labels = torch.tensor([index[label_name(recording.name)] for recording in recordings])
            tensors["label"] = labels.repeat_interleave(torch.tensor([len(each.clips) for each in recordings]))
        names = [printable(recording.name) for recording in recordings for _ in recording.clips]
        return ClipSplit(TensorSplit(tensors, decode_audio), names)

    def _split_of(self, recording: Recording) -> SplitName:
        return split_of(share_of_digest(recording.digest), validation=self.validation, test=self.test)

    @cached_property
    def _recordings(self) -> list[Recording]:
        """Read every file once, and judge the whole."""
        self._samples = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(self._examine, self.listing))
        self.notes = judge(outcomes, self.folder, what=".wav files", suffixes=SUFFIXES, max_broken=self.max_broken)
        return [outcome for outcome in outcomes if isinstance(outcome, Recording)]

    def _examine(self, listed: tuple[str, str | None]) -> Recording | str:
        """The recording, or the line about it in the report on broken files."""
        name, reason = listed
        if reason is not None:
            return f"{printable(name)}: {reason}"
        try:
            sound, rate = read_wav(self.folder / name)
        except BrokenSound as error:
            return f"{printable(name)}: {error}"
        clips = cut(resample(sound, rate, self.sample_rate), self.length)
        self._samples += clips.numel()  # threads may lose a count: the limit is no exact one
        if 2 * self._samples > self.memory_limit * 1_000_000:
            raise DataError(
                f"the clips of {self.folder} take more than dataset.memory_limit={self.memory_limit} megabytes: raise "
                "it, take a lower dataset.sample_rate, or fewer files"
            )
        return Recording(name, hashlib.sha256(clips.numpy().tobytes()).hexdigest(), clips)


class ClipSplit(Split):
    """Clips held in memory, which are called by the files that they are from."""

    def __init__(self, clips: TensorSplit, names: list[str]):
        self.clips, self.names = clips, names

    def __len__(self) -> int:
        return len(self.clips)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        return self.clips.fetch(positions)

    def name_of(self, position: int) -> str:
        return self.names[position]

    def to(self, device: torch.device) -> "ClipSplit":
        return ClipSplit(self.clips.to(device), self.names)

    def content_hash(self) -> str:
        return self.clips.content_hash()


def read_sound(path: Path, sample_rate: int) -> tuple[Tensor, int]:
    """A file as a model of such data takes it, (T,) in [-1, 1], and the rate that it had. Raises BrokenSound."""
    sound, rate = read_wav(path)
    return decode_audio({"audio": to_levels(resample(sound, rate, sample_rate))})["audio"], rate


def to_levels(sound: Tensor) -> Tensor:
    """(T,) in [-1, 1] to int16."""
    return (sound * 32767).round().to(torch.int16)


def cut(sound: Tensor, length: int) -> Tensor:
    """(T,) in [-1, 1] to whole clips one after the other, (N, length) int16; what is left over at the end is dropped.

    A shorter sound is one clip, followed by silence.
    """
    levels = to_levels(sound)
    if len(levels) < length:
        levels = torch.nn.functional.pad(levels, (0, length - len(levels)))
    return levels[: len(levels) // length * length].unflatten(0, (-1, length))
