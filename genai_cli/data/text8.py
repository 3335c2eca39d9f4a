"""text8: the first hundred million characters of a cleaned Wikipedia, a to z and the space (Mahoney 2006).

`genai train model=gpt dataset=text8`. Split as the literature does: 90 million characters to train, 5 to validate, 5 to
test. The file is not in the package: put the unpacked text8 of mattmahoney.net/dc/text8.zip where the error says.
"""

from functools import cached_property

import torch

from genai_cli.data.base import DataError, Dataset, Spec, SplitName
from genai_cli.data.places import find, missing
from genai_cli.data.tokenizers import CharTokenizer, bytes_to_tokens
from genai_cli.data.windows import TokenWindows, read_text
from genai_cli.rules import PositiveInt

CHARACTERS = " abcdefghijklmnopqrstuvwxyz"
SIZE = 100_000_000
BOUNDS = {"train": (0, 90_000_000), "validation": (90_000_000, 95_000_000), "test": (95_000_000, SIZE)}
FILES = tuple(f"{folder}/{name}" for folder in ("text8", "text/text8") for name in ("text8", "text8.gz", "text8.xz"))


class Text8(Dataset):
    """A hundred million characters of Wikipedia in 27 letters, put there by you."""

    modality = "text"

    def __init__(
        self,
        *,
        root: str | None = None,
        length: PositiveInt = 256,  # tokens that a prediction may look back on
    ):
        self.root, self.length = root, length
        self.tokenizer = CharTokenizer(CHARACTERS)
        self.spec = Spec("text", (length,), tokenizer=self.tokenizer.to_json(), vocabulary_size=len(CHARACTERS))

    def load(self, split: SplitName) -> TokenWindows:
        start, stop = BOUNDS[split]
        return TokenWindows(
            self._tokens[start:stop].clone(), length=self.length, stride=1 if split == "train" else self.length
        )

    @cached_property
    def _tokens(self) -> torch.Tensor:
        """(100,000,000,) uint8."""
        path = find(self.root, FILES)
        if path is None:
            remedy = "put the unpacked file of mattmahoney.net/dc/text8.zip there (as it is, or .xz, .gz)"
            raise missing("text8", self.root, [FILES[0]], remedy=remedy)
        content = bytes_to_tokens(read_text(path))
        ranks = torch.zeros(256, dtype=torch.uint8)
        ranks[[ord(character) for character in CHARACTERS]] = torch.arange(1, 28, dtype=torch.uint8)
        tokens = torch.cat([ranks[part.long()] for part in content.split(10_000_000)])
        if len(tokens) != SIZE or int(tokens.min()) == 0:
            raise DataError(f"{path} is not text8: it must be {SIZE:,} characters, a to z and the space")
        return tokens - 1
