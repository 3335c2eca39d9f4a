"""Large texts as tokens that stay on disk: read where they are needed, and forgotten when memory is.

By byte, the file itself is the tokens. By character it is written once as tokens into the cache, in the parts in which
it is read; the vocabulary is that of the whole text, as for texts that are read at once.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from genai_cli.data.base import DataError
from genai_cli.data.places import roots
from genai_cli.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer

_PART = 1 << 22  # characters read at a time


def map_text(path: Path, tokenizer: str) -> tuple[Tokenizer, Tensor]:
    """What `windows.tokenize` makes of the file's content with "byte" or "char", without holding it.

    Tokens (N,) uint8, or int32 where the vocabulary is larger than 256. Raises DataError for a file that is not UTF-8.
    """
    if tokenizer == "byte":
        return ByteTokenizer(), _map(path, torch.uint8)
    characters: set[str] = set()
    for part in _parts(path):
        characters.update(part)
    known = CharTokenizer("".join(sorted(characters)))
    kind = torch.uint8 if known.vocabulary_size <= 256 else torch.int32
    return known, _map(_tokens_file(path, known, kind), kind)


def _map(path: Path, kind: torch.dtype) -> Tensor:
    """The numbers that a file holds; what is written to them stays in memory."""
    return torch.from_file(str(path), shared=False, size=path.stat().st_size // kind.itemsize, dtype=kind)


def _parts(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            while part := file.read(_PART):
                yield part
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason}); convert it, or read it as it is with dataset.tokenizer=byte"
        ) from None


def _tokens_file(path: Path, tokenizer: CharTokenizer, kind: torch.dtype) -> Path:
    """Where the tokens of the file are, as it is now; written there if they are not."""
    state = path.stat()
    identity = f"{path.resolve()}\n{state.st_size}\n{state.st_mtime_ns}\n{tokenizer.characters}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    place = roots(None)[-1] / "tokens" / f"{name}.{kind.itemsize * 8}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f"{place.name}.{os.getpid()}.part")
        with open(temporary, "wb") as file:
            for part in _parts(path):
                file.write(tokenizer.encode(part).to(kind).numpy().tobytes())
        os.replace(temporary, place)
    return place
