"""Your own music: a folder of MIDI files. `genai train model=gpt dataset=midi dataset.path=FOLDER`

Any number of tracks and voices; drums are left out. Which split a file belongs to follows from its content, so that
copies never straddle splits and a new file moves no other.
"""

from functools import cached_property
from pathlib import Path

from genai_cli.data.base import DataError, Dataset, SplitName
from genai_cli.data.music_tokens import EventTokenizer
from genai_cli.data.pieces import music_spec, music_windows
from genai_cli.data.shares import share_of, split_of
from genai_cli.data.windows import TokenWindows
from genai_cli.media.midi import Score, quantise, read_midi
from genai_cli.rules import FolderName, Fraction, NonNegativeInt, PositiveInt

SUFFIXES = (".mid", ".midi")


class Midi(Dataset):
    """Your own MIDI files, any music: `dataset.path=FOLDER`."""

    modality = "music"
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        path: FolderName,
        length: PositiveInt = 256,  # tokens that a prediction may look back on; a note takes two or three
        steps_per_quarter: PositiveInt = 4,
        transpose: NonNegativeInt = 3,  # semitones up and down in which the training pieces are repeated
        validation: Fraction = 0.1,
        test: Fraction = 0.1,
        max_broken: Fraction = 0.05,  # the share of files that may be unreadable
    ):
        self.folder = Path(path).expanduser()
        self.length, self.steps_per_quarter, self.transpose = length, steps_per_quarter, transpose
        self.validation, self.test = validation, test
        self.max_broken = max_broken
        if not self.folder.is_dir():
            raise DataError(f"dataset.path={path} is not a folder: give one that holds MIDI files")
        self.tokenizer = EventTokenizer(steps_per_quarter=steps_per_quarter)
        self.spec = music_spec(self.tokenizer, length)

    def load(self, split: SplitName) -> TokenWindows:
        scores = [score for score, share in self._scores if self._split_of(share) == split]
        if not scores:
            raise DataError(
                f"the {split} split of the {len(self._scores)} pieces in {self.folder} is empty: "
                "add files, or change the shares, such as dataset.validation=0.2 dataset.test=0.2"
            )
        source = f"the {split} split of {self.folder}"
        return music_windows(
            scores,
            self.tokenizer,
            length=self.length,
            is_training=split == "train",
            transpose=self.transpose,
            source=source,
        )

    def _split_of(self, share: float) -> SplitName:
        return split_of(share, validation=self.validation, test=self.test)

    @cached_property
    def _scores(self) -> list[tuple[Score, float]]:
        """Every readable piece, and a number in [0, 1) that its notes give."""
        paths = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            raise DataError(f"{self.folder} holds no MIDI files: put some there (names ending in {' '.join(SUFFIXES)})")
        found, broken = [], []
        for path in paths:
            try:
                score = quantise(read_midi(path.read_bytes()), self.steps_per_quarter)
                if not score.notes:
                    raise ValueError("it holds no notes")
                self.tokenizer.encode(score)
                found.append((score, share_of(repr(score.notes))))
            except (OSError, ValueError, IndexError) as error:
                broken.append(f"  {path.relative_to(self.folder)}: {error}")
        if len(broken) > self.max_broken * len(paths):
            lines = "\n".join(broken[:20])
            raise DataError(
                f"{len(broken)} of the {len(paths)} MIDI files in {self.folder} cannot be read, "
                f"a larger share than dataset.max_broken={self.max_broken:g}:\n{lines}"
            )
        if broken:
            self.notes = (f"{len(broken)} of {len(paths)} MIDI files were left out:\n" + "\n".join(broken[:20]),)
        return found
