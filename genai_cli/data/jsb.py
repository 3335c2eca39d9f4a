"""J. S. Bach's chorales: 229 to train, 76 to validate and 77 to test (Boulanger-Lewandowski et al. 2012).

`genai train model=gpt dataset=jsb dataset.download=true`. The voices are from the copy of the same 382 chorales in
sixteenths by C.-Z. A. Huang. A note that is struck again at the same pitch is one long note there.
"""

import hashlib
import json
from functools import cached_property
from typing import Literal

from genai_cli.data.base import DataError, Dataset, SplitName
from genai_cli.data.download import download
from genai_cli.data.pieces import choose_tokenizer, music_spec, music_windows, score_of_frames
from genai_cli.data.places import find, missing, roots
from genai_cli.data.windows import TokenWindows, read_text
from genai_cli.media.midi import Score
from genai_cli.rules import NonNegativeInt, PositiveInt

SHA256 = "79294cc374f9252e95ef4b703161524c1c53dc1f712c236f00f1c1f5d54af5a7"
COMMIT = "9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d"
URLS = (
    f"https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/{COMMIT}/Jsb16thSeparated.json",
    f"https://cdn.jsdelivr.net/gh/czhuang/JSB-Chorales-dataset@{COMMIT}/Jsb16thSeparated.json",
)
FOLDERS = ("jsb_chorales", "music/jsb_chorales")
FILES = ("Jsb16thSeparated.json", "Jsb16thSeparated.json.xz", "Jsb16thSeparated.json.gz")
KEYS = {"train": "train", "validation": "valid", "test": "test"}
STEPS_PER_QUARTER = 4  # of the file


class Jsb(Dataset):
    """Bach's 382 four-part chorales; `dataset.download=true` fetches them."""

    modality = "music"

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        length: PositiveInt = 256,  # tokens that a prediction may look back on
        tokenizer: Literal["voices", "events"] = "voices",
        steps_per_quarter: Literal[1, 2, 4] = 2,  # 2: eighth notes, 32 tokens to a bar of four voices
        transpose: NonNegativeInt = 3,  # semitones up and down in which the training pieces are repeated
    ):
        self.root, self.may_download = root, download
        self.length, self.steps_per_quarter, self.transpose = length, steps_per_quarter, transpose
        self.tokenizer = choose_tokenizer(tokenizer, steps_per_quarter)
        self.spec = music_spec(self.tokenizer, length)

    def load(self, split: SplitName) -> TokenWindows:
        return music_windows(
            self.scores(split),
            self.tokenizer,
            length=self.length,
            is_training=split == "train",
            transpose=self.transpose,
            source=f"the {split} split of jsb",
        )

    def scores(self, split: SplitName) -> list[Score]:
        """The pieces of a split, on this data set's grid."""
        every = STEPS_PER_QUARTER // self.steps_per_quarter
        return [score_of_frames(frames[::every], self.steps_per_quarter) for frames in self._pieces[KEYS[split]]]

    @cached_property
    def _pieces(self) -> dict[str, list[list[list[int]]]]:
        """Split -> pieces -> sixteenths -> the pitch of each voice."""
        return json.loads(read_chorales(self.root, SHA256, FILES, URLS, may_download=self.may_download))


def read_chorales(
    root: str | None, sha256: str, files: tuple[str, ...], urls: tuple[str, ...], *, may_download: bool
) -> bytes:
    """The content of one of `files`, downloaded from `urls` where it may be; its sha256 must be the one given."""
    names = [f"{folder}/{file}" for folder in FOLDERS for file in files]
    path = find(root, names)
    if path is None and may_download:
        path = download(urls, roots(root)[0] / names[0], sha256)
    if path is None:
        remedy = "put the file there (as it is, or .xz, .gz), or let dataset.download=true fetch it (1.7 MB)"
        raise missing("the set of chorales", root, [names[0]], remedy=remedy)
    content = read_text(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is not the original file, its sha256 differs: remove it and fetch it again")
    return content
