"""Any text: a file or a folder of files, by character, byte or byte pairs; without a path, a sample in the package.

`genai train model=gpt dataset=text dataset.path=novel.txt`. Files may be compressed (.gz, .xz). A folder is read in
the order of its paths, its files joined by line feeds. The sample is the Book of Genesis (King James Version).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from genai_cli.data.base import DataError, Dataset, SplitName
from genai_cli.data.mapped import map_text
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.data.windows import Corpus, TokenWindows, decode_utf8, read_text
from genai_cli.rules import Fraction, NonNegativeInt, PositiveInt

SAMPLE = Path(__file__).parent / "embedded" / "text" / "genesis.txt.xz"
SUFFIXES = (".txt", ".md", ".txt.gz", ".txt.xz", ".md.gz", ".md.xz")


class Text(Dataset):
    """Any text file or folder; by default a sample in the package, the Book of Genesis, 204,673 characters."""

    modality = "text"
    rules = {
        "tokenizer != 'bpe' or vocabulary > 256": "bpe needs a vocabulary above 256: every byte is a token",
        "tokenizer == 'bpe' or vocabulary == 1024": "vocabulary belongs to tokenizer=bpe",
        "validation > 0 and test > 0 and validation + test < 1": "validation, test must be above 0, together below 1",
    }

    def __init__(
        self,
        *,
        path: str | None = None,
        length: PositiveInt = 64,  # tokens that a prediction may look back on
        tokenizer: Literal["char", "byte", "bpe"] = "char",
        vocabulary: PositiveInt = 1024,  # tokens of bpe, 256 of them bytes
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
        map_above: NonNegativeInt = 200_000_000,  # bytes of a plain file from which it stays on disk; not with bpe
    ):
        place = SAMPLE if path is None else Path(path).expanduser()
        files = text_files(place)
        is_plain = len(files) == 1 and tokenizer != "bpe" and files[0].suffix not in (".gz", ".xz")
        if is_plain and files[0].stat().st_size > map_above:
            content = map_text(files[0], tokenizer)
        else:
            content = b"\n".join(read_checked(file, tokenizer) for file in files)
        self.corpus = Corpus(
            content,
            source=str(place),
            tokenizer=tokenizer,
            length=length,
            validation=validation,
            test=test,
            vocabulary=vocabulary,
        )
        self.spec = self.corpus.spec

    def load(self, split: SplitName) -> TokenWindows:
        return self.corpus.split(split)

    def adopt(self, tokenizer: Mapping[str, Any]) -> None:
        self.corpus.adopt(tokenizer_from_json(tokenizer))
        self.spec = self.corpus.spec


def text_files(place: Path) -> list[Path]:
    """`place` itself, or the text files below it in the order of their paths."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"dataset.path={place} is not there: give a text file or a folder of text files")
    files = [path for path in place.rglob("*") if path.name.lower().endswith(SUFFIXES) and path.is_file()]
    if not files:
        raise DataError(f"dataset.path={place} holds no text file (names ending in {', '.join(SUFFIXES)})")
    return sorted(files, key=lambda path: path.relative_to(place).parts)


def read_checked(path: Path, tokenizer: str) -> bytes:
    """A file's content; if characters will be wanted of it, its UTF-8 is checked here, where its name is known."""
    content = read_text(path)
    if tokenizer != "byte":
        decode_utf8(content, str(path))
    return content
