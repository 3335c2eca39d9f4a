"""Text to tokens and back, exactly: by character or by byte. A tokenizer travels in the spec, as JSON.

Tokenizers of music are in music_tokens.py, of molecules in smiles_tokens.py; byte pairs in byte_pairs.py.
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

from genai_cli.data.base import Spec


class Grammar(ABC):
    """Which tokens may come next in each of B sequences that are being drawn, so that what is drawn can be read."""

    is_default = True  # whether it is used unless the user says otherwise
    may_follow: Tensor | None = None  # (V, V) bool: which tokens may follow token i, where the last alone decides

    @abstractmethod
    def advance(self, tokens: Tensor) -> None:
        """Take note of the next token (B,) of each sequence, given or drawn."""

    @abstractmethod
    def allowed(self, remaining: int) -> Tensor:
        """(B, V) bool: the tokens that may follow, where `remaining` more (this one included) fit."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Go on with the sequences `rows` (B',) in place of all, as a search over several of each does."""

    def check_prompt(self, prompt: Tensor, room: int) -> None:  # noqa: B027 - most prompts can be gone on with
        """Raise ValueError where no sequence of at most `room` tokens more begins with `prompt` (P,)."""


class FollowGrammar(Grammar):
    """A grammar in which the last token alone decides."""

    def __init__(self, may_follow: Tensor):
        """`may_follow` (V, V) bool: row i says which tokens may follow token i."""
        self.may_follow = may_follow
        self.last: Tensor | None = None  # (B,)

    def advance(self, tokens: Tensor) -> None:
        self.last = tokens

    def allowed(self, remaining: int) -> Tensor:
        assert self.last is not None, "a sequence begins with the start token"
        self.may_follow = self.may_follow.to(self.last.device)
        return self.may_follow[self.last]

    def select(self, rows: Tensor) -> None:
        assert self.last is not None, "a sequence begins with the start token"
        self.last = self.last[rows]


class Tokenizer(ABC):
    """`decode(encode(text)) == text`, for every text (score, molecule) that `encode` accepts."""

    vocabulary_size: int
    start: int = 0  # the token before the first of a sequence that has no prompt
    end: int | None = None  # the token that closes a sequence, where sequences have an end
    separator: int | None = None  # the token between a prompt and its response, where sequences are such pairs

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """(T,) int64. Raises ValueError, naming it and its position, for a character outside the vocabulary."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> str:
        """The text of `tokens` (T,), any integer type. Raises ValueError for a token outside the vocabulary."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What `tokenizer_from_json` rebuilds it from."""

    def prompt(self, text: str) -> Tensor:
        """(T,) int64: what `text`, as it is typed at the shell, begins a sequence with. Raises ValueError."""
        return self.encode(text)

    def grammar(self, rows: int) -> Grammar | None:
        """A fresh grammar for `rows` sequences; None where any token may follow any other."""
        return None

    def _check_range(self, tokens: Tensor) -> None:
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary_size:
            raise ValueError(f"a token is not in 0 to {self.vocabulary_size - 1}")


class CharTokenizer(Tokenizer):
    """One token a character (Unicode code point): its rank among the characters of the vocabulary."""

    def __init__(self, characters: str):
        """`characters`: the vocabulary, distinct and in order of their code points."""
        if not characters or list(characters) != sorted(set(characters)):
            raise ValueError("the characters of a vocabulary must be distinct and sorted")
        self.characters = characters
        self.vocabulary_size = len(characters)
        self._points = _code_points(characters)
        self.start = max(0, characters.find("\n"))  # windows of a text begin anywhere: a line break comes nearest

    @classmethod
    def of_text(cls, text: str) -> "CharTokenizer":
        """The tokenizer whose vocabulary is the characters of `text`."""
        return cls("".join(map(chr, numpy.unique(_code_points(text)))))

    def encode(self, text: str) -> Tensor:
        points = _code_points(text)
        ranks = numpy.searchsorted(self._points, points).clip(max=self.vocabulary_size - 1)
        unknown = numpy.flatnonzero(self._points[ranks] != points)
        if len(unknown):
            position = int(unknown[0])
            name = describe_character(text[position])
            raise ValueError(f"{name} at position {position} is not among the {self.vocabulary_size} known characters")
        return torch.from_numpy(ranks.astype(numpy.int64))

    def decode(self, tokens: Tensor) -> str:
        self._check_range(tokens)
        return "".join([self.characters[token] for token in tokens.tolist()])

    def to_json(self) -> dict[str, Any]:
        return {"name": "char", "characters": self.characters}


class ByteTokenizer(Tokenizer):
    """One token a byte of the text's UTF-8 form: 256 tokens for every language."""

    vocabulary_size = 256
    start = ord("\n")

    def encode(self, text: str) -> Tensor:
        try:
            return bytes_to_tokens(text.encode()).long()
        except UnicodeEncodeError as error:
            name = describe_character(text[error.start])
            raise ValueError(f"{name} at position {error.start} is half a character, which has no UTF-8 form") from None

    def decode(self, tokens: Tensor) -> str:
        """As `Tokenizer.decode`; bytes that are no UTF-8, as a model may sample them, become U+FFFD."""
        self._check_range(tokens)
        return bytes(tokens.tolist()).decode(errors="replace")

    def to_json(self) -> dict[str, Any]:
        return {"name": "byte"}


def tokenizer_from_json(record: Mapping[str, Any]) -> Tokenizer:
    """The inverse of `Tokenizer.to_json`. Raises ValueError for a record that is not of a tokenizer."""
    match dict(record):
        case {"name": "char", "characters": str(characters)}:
            return CharTokenizer(characters)
        case {"name": "byte"}:
            return ByteTokenizer()
        case {"name": "bpe", "merges": list(merges)}:
            from genai_cli.data.byte_pairs import BytePairTokenizer

            return BytePairTokenizer(merges)
        case {"name": "pairs", "inner": Mapping() as inner}:
            return PairTokenizer(tokenizer_from_json(inner))
        case {"name": "numbers", "vocabulary_size": int(size)}:
            return Numbers(size)
        case {"name": "voices" | "events"}:
            from genai_cli.data.music_tokens import music_tokenizer_from_json

            return music_tokenizer_from_json(record)
        case {"name": "smiles", "tokens": list()}:
            from genai_cli.data.smiles_tokens import smiles_tokenizer_from_json

            return smiles_tokenizer_from_json(record)
    raise ValueError(f"{record!r} is not the record of a tokenizer")


def tokenizer_of(spec: Spec) -> Tokenizer:
    """The tokenizer of a spec of tokens; where it has none, the tokens stand for themselves."""
    return Numbers(spec.vocabulary_size or 0) if spec.tokenizer is None else tokenizer_from_json(spec.tokenizer)


class Numbers(Tokenizer):
    """Tokens that have no text, such as codes of a quantiser: written as numbers with spaces between them."""

    def __init__(self, vocabulary_size: int):
        self.vocabulary_size = vocabulary_size

    def encode(self, text: str) -> Tensor:
        """Raises ValueError for what is no number in the vocabulary."""
        tokens = torch.tensor([int(word) for word in text.split()], dtype=torch.int64)
        self._check_range(tokens)
        return tokens

    def decode(self, tokens: Tensor) -> str:
        self._check_range(tokens)
        return " ".join(map(str, tokens.tolist()))

    def to_json(self) -> dict[str, Any]:
        return {"name": "numbers", "vocabulary_size": self.vocabulary_size}


class PairTokenizer(Tokenizer):
    """A prompt, the separator, its response, and the end, in the tokens of another tokenizer and two more."""

    def __init__(self, inner: Tokenizer):
        self.inner = inner
        self.separator = inner.vocabulary_size
        self.end = self.start = inner.vocabulary_size + 1  # a pair also begins with it
        self.vocabulary_size = inner.vocabulary_size + 2

    def encode(self, text: str) -> Tensor:
        return self.inner.encode(text) if text else torch.zeros(0, dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """Up to the first end after the beginning; a separator becomes a line break."""
        self._check_range(tokens)
        parts = [[]]
        for place, token in enumerate(tokens.tolist()):
            if token == self.end and place > 0:
                break
            if token == self.separator:
                parts.append([])
            elif token != self.end:
                parts[-1].append(token)
        return "\n".join(self.inner.decode(torch.tensor(part, dtype=torch.int64)) if part else "" for part in parts)

    def prompt(self, text: str) -> Tensor:
        """What a pair begins with: up to the separator."""
        return torch.cat([torch.tensor([self.start]), self.encode(text), torch.tensor([self.separator])])

    def response(self, text: str) -> Tensor:
        """What a pair goes on with: up to its end."""
        return torch.cat([self.encode(text), torch.tensor([self.end])])

    def to_json(self) -> dict[str, Any]:
        return {"name": "pairs", "inner": self.inner.to_json()}


def bytes_to_tokens(content: bytes) -> Tensor:
    """(T,) uint8, a copy."""
    return torch.from_numpy(numpy.frombuffer(content, numpy.uint8).copy())


def describe_character(character: str) -> str:
    """Such as "'é' (U+00E9, LATIN SMALL LETTER E WITH ACUTE)"."""
    name = unicodedata.name(character, "")
    return f"{character!r} (U+{ord(character):04X}{', ' if name else ''}{name})"


def _code_points(text: str) -> numpy.ndarray:
    return numpy.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
