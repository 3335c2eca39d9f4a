"""Byte-pair encoding (Sennrich et al. 2016; over bytes, as in GPT-2), learned from the text that a model is trained on.

Every text has a form, since every byte is a token; none is lost, since pieces of text are only joined. The order in
which pairs are joined is a function of the text alone: the most frequent first, of equals the one with the smaller
tokens. Bytes are numbered as GPT-2 does (first those that print), so that the tokens are those of other programs.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.tokenizers import Tokenizer, describe_character

# Pairs are joined within a word (with the space before it), a run of punctuation, or a run of white space.
PIECE = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+")
PRINTING = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = [*PRINTING, *(byte for byte in range(256) if byte not in set(PRINTING))]  # token -> byte, for the first 256

LEARNED_FROM = 500_000  # characters: more take minutes and change little

Pair = tuple[int, int]


class BytePairTokenizer(Tokenizer):
    """Tokens 0 to 255 are bytes, each of the others two earlier ones joined."""

    def __init__(self, merges: Iterable[Sequence[int]]):
        """`merges`: the pairs in the order in which they were learned; pair i is token 256 + i."""
        self.merges: list[Pair] = [(int(first), int(second)) for first, second in merges]
        self.vocabulary_size = 256 + len(self.merges)
        self._token_of_byte = {byte: token for token, byte in enumerate(BYTES)}
        self._contents = [bytes([byte]) for byte in BYTES]
        for i, (first, second) in enumerate(self.merges):
            if not 0 <= min(first, second) <= max(first, second) < 256 + i:
                raise ValueError(f"pair {i} joins {first} and {second}, which are not both among the tokens before it")
            self._contents.append(self._contents[first] + self._contents[second])
        self._rank = {pair: 256 + i for i, pair in enumerate(self.merges)}
        self._known: dict[str, list[int]] = {}  # pieces encoded before
        self.start = self._token_of_byte[ord("\n")]

    @classmethod
    def of_text(cls, text: str, vocabulary_size: int) -> "BytePairTokenizer":
        """The tokenizer learned from the first half million characters of `text`.

        Smaller than `vocabulary_size` where the text has too few pairs.
        """
        return cls(learn_merges(text[:LEARNED_FROM], vocabulary_size - 256))

    def encode(self, text: str) -> Tensor:
        try:
            tokens: list[int] = []
            for piece in PIECE.findall(text):
                known = self._known.get(piece)
                if known is None:
                    known = self._known[piece] = self._encode_piece(piece)
                tokens += known
        except UnicodeEncodeError:
            position = next(i for i, character in enumerate(text) if 0xD800 <= ord(character) <= 0xDFFF)
            name = describe_character(text[position])
            raise ValueError(f"{name} at position {position} is half a character, which has no UTF-8 form") from None
        return torch.tensor(tokens, dtype=torch.int64)

    def _encode_piece(self, piece: str) -> list[int]:
        tokens = [self._token_of_byte[byte] for byte in piece.encode()]
        while len(tokens) > 1:
            best = min(pairwise(tokens), key=lambda pair: self._rank.get(pair, self.vocabulary_size))
            if best not in self._rank:
                break
            tokens = join(tokens, best, self._rank[best])
        return tokens

    def decode(self, tokens: Tensor) -> str:
        """As `Tokenizer.decode`; bytes that are no UTF-8, as a model may sample them, become U+FFFD."""
        self._check_range(tokens)
        return b"".join(self._contents[token] for token in tokens.tolist()).decode(errors="replace")

    def to_json(self) -> dict[str, Any]:
        return {"name": "bpe", "merges": [list(pair) for pair in self.merges]}


def learn_merges(text: str, count: int) -> list[Pair]:
    """At most `count` pairs of tokens, in the order in which they are joined."""
    token_of_byte = {byte: token for token, byte in enumerate(BYTES)}
    pieces = Counter(PIECE.findall(text))
    words = [[token_of_byte[byte] for byte in piece.encode()] for piece in pieces]
    frequency = list(pieces.values())
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that hold a pair, or held it
    for i, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += frequency[i]
            where[pair].add(i)
    heap = [(-number, pair) for pair, number in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < count:
        number, pair = heapq.heappop(heap)
        if -number != counts[pair]:  # the count has changed since: the newer entry decides
            continue
        if number == 0:
            break
        token = 256 + len(merges)
        merges.append(pair)
        changed: set[Pair] = set()
        for i in where[pair]:
            before, words[i] = words[i], join(words[i], pair, token)
            if len(words[i]) == len(before):
                continue
            for old in pairwise(before):
                counts[old] -= frequency[i]
                changed.add(old)
            for new in pairwise(words[i]):
                counts[new] += frequency[i]
                where[new].add(i)
                changed.add(new)
        for other in changed:
            heapq.heappush(heap, (-counts[other], other))
    return merges


def join(tokens: list[int], pair: Pair, token: int) -> list[int]:
    """`tokens` with each occurrence of `pair`, from the left, replaced by `token`."""
    joined, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            joined.append(token)
            i += 2
        else:
            joined.append(tokens[i])
            i += 1
    return joined
