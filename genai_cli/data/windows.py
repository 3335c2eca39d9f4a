"""A long text as examples: contiguous splits, cut into windows of T + 1 tokens (T inputs, and each one's next token).

To train, a window begins at every token. To score, windows follow each other so that every token but the first of
the split is a target exactly once; `mask` leaves out what pads the last one.
"""

import gzip
import hashlib
import lzma
import zlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Spec, Split, SplitName
from genai_cli.data.byte_pairs import BytePairTokenizer
from genai_cli.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, bytes_to_tokens

_HASHED = 1 << 22  # tokens hashed at a time


class TokenWindows(Split):
    """Windows of one stored sequence, found by index arithmetic: nothing is stored twice."""

    def __init__(self, tokens: Tensor, *, length: int, stride: int):
        """`tokens` (N,), any integer type; window i holds the `length` + 1 tokens from i * `stride` on."""
        self.tokens = tokens
        self.length = length
        self.stride = stride

    def __len__(self) -> int:
        num_targets = len(self.tokens) - 1
        if self.stride == 1:
            return num_targets - self.length + 1  # full windows
        return -(-num_targets // self.stride)  # and the shorter last one

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        """`tokens` (B, T + 1) int64 and `mask` (B, T), True where the target `tokens[:, 1:]` is real."""
        starts = positions.to(self.tokens.device) * self.stride
        index = starts.unsqueeze(1) + torch.arange(self.length + 1, device=self.tokens.device)  # (B, T + 1)
        is_real = index < len(self.tokens)
        tokens = self.tokens[index.clamp_(max=len(self.tokens) - 1)].long()
        return {"tokens": tokens, "mask": is_real[:, 1:]}

    def to(self, device: torch.device) -> "TokenWindows":
        return TokenWindows(self.tokens.to(device), length=self.length, stride=self.stride)

    def content_hash(self) -> str:
        """Of the tokens alone: it is the same text, however it is cut."""
        digest = hashlib.sha256()
        for start in range(0, len(self.tokens), _HASHED):
            digest.update(self.tokens[start : start + _HASHED].cpu().to(torch.int32).numpy().tobytes())
        return digest.hexdigest()


class SlidingWindows(Split):
    """Windows that overlap by all but `stride` tokens: each scores only its last ones, with the rest as context.

    Every token but the first of the split is a target exactly once, as in `TokenWindows`; but here a target has at
    least `length` - `stride` tokens before it, where the split has them.
    """

    def __init__(self, windows: TokenWindows, *, stride: int):
        self.windows = windows
        self.tokens, self.length, self.stride = windows.tokens, windows.length, stride

    def to(self, device: torch.device) -> "SlidingWindows":
        return SlidingWindows(self.windows.to(device), stride=self.stride)

    def __len__(self) -> int:
        num_targets = len(self.tokens) - 1
        return 1 + -(-max(0, num_targets - self.length) // self.stride)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        windows = TokenWindows(self.tokens, length=self.length, stride=self.stride)
        rows = windows.fetch(positions)
        is_new = torch.arange(self.length) >= self.length - self.stride  # (T,)
        is_first = (positions == 0).unsqueeze(1)  # (B, 1), which scores all of its targets
        return {**rows, "mask": rows["mask"] & (is_new | is_first).to(rows["mask"].device)}

    def content_hash(self) -> str:
        return self.windows.content_hash()


class Corpus:
    """A text as tokens, its tokenizer, and how it is cut: the first part to train, the last to test."""

    def __init__(
        self, content: bytes | tuple[Tokenizer, Tensor], *, source: str, tokenizer: str, length: int,
        validation: float, test: float, vocabulary: int = 1024,
    ):  # fmt: skip
        """`content` is a text, or its tokens and their tokenizer, which are used where they lie.

        `source` names the text in errors; `validation` and `test` are shares of its tokens.
        `vocabulary`: the size for the tokenizer "bpe", which learns from the part to train on.
        """
        self.source = source
        self.length = length
        self.validation, self.test = validation, test
        self.is_mapped = not isinstance(content, bytes)
        if isinstance(content, bytes):
            share = 1 - validation - test
            content = tokenize(content, tokenizer, source, vocabulary=vocabulary, share_to_learn=share)
        self.tokenizer, self.tokens = content
        self.spec = Spec(
            "text", (length,), tokenizer=self.tokenizer.to_json(), vocabulary_size=self.tokenizer.vocabulary_size
        )

    def adopt(self, tokenizer: Tokenizer) -> None:
        """Write the text in the tokens of `tokenizer`. Raises DataError where it has none for some of it."""
        text = self.tokenizer.decode(self.tokens)
        if not torch.equal(self.tokenizer.encode(text), self.tokens.long()):
            raise DataError(f"{self.source} is not UTF-8: start from a run of dataset.tokenizer=byte, which reads it")
        check_vocabulary(tokenizer, text, self.source)
        kind = torch.uint8 if tokenizer.vocabulary_size <= 256 else torch.int32
        self.tokenizer, self.tokens = tokenizer, tokenizer.encode(text).to(kind)
        self.spec = replace(self.spec, tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)

    def split(self, name: SplitName) -> TokenWindows:
        count = len(self.tokens)
        train_stop, test_start = int(count * (1 - self.validation - self.test)), int(count * (1 - self.test))
        bounds = {"train": (0, train_stop), "validation": (train_stop, test_start), "test": (test_start, count)}
        tokens = self.tokens[slice(*bounds[name])]
        tokens = tokens if self.is_mapped else tokens.clone()
        needed = self.length + 1 if name == "train" else 2
        if len(tokens) < needed:
            raise DataError(
                f"the {name} split of {self.source} has {len(tokens)} of its {count:,} tokens, fewer than {needed}: "
                f"give a longer text, a smaller dataset.length or another dataset.validation and dataset.test"
            )
        return TokenWindows(tokens, length=self.length, stride=1 if name == "train" else self.length)


def tokenize(
    content: bytes, tokenizer: str, source: str, *, vocabulary: int = 1024, share_to_learn: float = 1.0
) -> tuple[Tokenizer, Tensor]:
    """`tokenizer` "char", "byte" or "bpe", and the tokens (N,) as uint8, or int32 where the vocabulary is larger.

    The vocabulary of "char" is that of the whole text (as in nanoGPT): no character of the test split is unknown.
    """
    if not content:
        raise DataError(f"{source} is empty: give a text that holds something")
    if tokenizer == "byte":
        return ByteTokenizer(), bytes_to_tokens(content)
    text = decode_utf8(content, source)
    if tokenizer == "bpe":
        pairs = BytePairTokenizer.of_text(text[: int(len(text) * share_to_learn)], vocabulary)
        return pairs, pairs.encode(text).to(torch.int32)
    characters = CharTokenizer.of_text(text)
    tokens = characters.encode(text)
    return characters, tokens.to(torch.uint8 if characters.vocabulary_size <= 256 else torch.int32)


def check_vocabulary(tokenizer: Tokenizer, text: str, source: str) -> None:
    """Raises DataError, naming some, for characters of `text` that `tokenizer` has no token for."""
    unknown = [character for character in sorted(set(text)) if not _knows(tokenizer, character)]
    if unknown:
        shown = "".join(unknown[:20])
        raise DataError(
            f"{source} has {len(unknown)} characters that are not in the vocabulary of init, such as {shown!r}; start "
            "from a run of dataset.tokenizer=byte or bpe, which know every character"
        )


def _knows(tokenizer: Tokenizer, character: str) -> bool:
    try:
        tokenizer.encode(character)
    except ValueError:
        return False
    return True


def decode_utf8(
    content: bytes, source: str, *, remedy: str = "convert it, or read it as it is with dataset.tokenizer=byte"
) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not UTF-8: byte {error.start:,} is 0x{content[error.start]:02x} ({error.reason}); {remedy}"
        ) from None


def read_text(path: Path) -> bytes:
    """The content of a plain, .gz or .xz file."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            return gzip.decompress(content)
        return lzma.decompress(content) if path.suffix == ".xz" else content
    except FileNotFoundError as error:
        raise DataError(f"{path} cannot be read: there is no such file; check its path") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} cannot be read: it is a folder; name a file in it") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
