"""Gaps of a text filled in by a model that names each by a sentinel and writes them one after the other (T5).

The encoder reads `a <0> b <1>`, the decoder writes `<0> x y <1> z <2>`: the text is `a x y b z`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom
from genai_cli.samplers.generation import NO_TOKEN


class GapGrammar:
    """After <k> come tokens of the text, then <k + 1>; after the last of a row nothing."""

    is_default = True
    may_follow = None

    def __init__(self, num_gaps: Tensor, *, sentinel: int, num_tokens: int, is_full: bool):
        """`num_gaps` (B,); `is_full`: a gap is not closed before it must be."""
        self.num_gaps, self.sentinel, self.num_tokens, self.is_full = num_gaps, sentinel, num_tokens, is_full
        self.gap = torch.full_like(num_gaps, -1)  # that is being filled, (B,)

    def advance(self, tokens: Tensor) -> None:
        self.gap = torch.where(tokens >= self.sentinel, tokens - self.sentinel, self.gap)

    def allowed(self, remaining: int) -> Tensor:
        needed = self.num_gaps - self.gap  # (B,): sentinels still to come
        allowed = (torch.arange(self.num_tokens, device=needed.device) < self.sentinel) & (remaining > needed)[:, None]
        may_close = (remaining <= needed) | torch.tensor(not self.is_full, device=needed.device)
        following = self.sentinel + torch.minimum(self.gap + 1, self.num_gaps)  # of a row that is done, its last again
        allowed = allowed & (needed > 0)[:, None]
        return allowed.scatter(1, following[:, None], (may_close | (needed == 0))[:, None])

    def select(self, rows: Tensor) -> None:
        self.gap, self.num_gaps = self.gap[rows], self.num_gaps[rows]

    def check_prompt(self, prompt: Tensor, room: int) -> None:
        """Nothing to check: `Gaps` has made the prompts."""


class Gaps:
    """Texts with gaps, as the tokenizer of what the decoder writes to `samplers.generation.generate`."""

    start, end = 0, None

    def __init__(
        self, texts: Sequence[Tensor], random: RowRandom, *, sentinel: int, num_tokens: int, is_full: bool = False
    ):
        """`texts`: tokens, with sentinels in place of what is missing; rows take them in turn. `is_full`: all the room
        is to be used."""
        self.rows = [texts[i % len(texts)] for i in random.index]
        self.device = random.device
        self.sentinel, self.num_tokens, self.is_full = sentinel, num_tokens, is_full

    def grammar(self, rows: int) -> GapGrammar:
        num_gaps = torch.tensor([int((text >= self.sentinel).sum()) for text in self.rows], device=self.device)
        return GapGrammar(num_gaps, sentinel=self.sentinel, num_tokens=self.num_tokens, is_full=self.is_full)

    def encode(self, text: str) -> Tensor:
        raise ValueError("a text with gaps ends where it ends: leave stop out")

    def decode(self, tokens: Tensor) -> Any:
        """See `fill`: what is drawn is no text by itself."""
        raise NotImplementedError

    def fill(self, drawn: Tensor, *, width: int) -> Tensor:
        """(B, width) int64: the texts with what was drawn after them (B, P + length) in their gaps, then NO_TOKEN."""
        filled = torch.full((len(drawn), width), NO_TOKEN)
        for row, text, tokens in zip(filled, self.rows, drawn.tolist(), strict=True):
            gaps = iter(self._split(tokens[len(text) + 1 :]))  # after the sentinel that the decoder began with
            parts = [next(gaps) if token >= self.sentinel else [token] for token in text.tolist()]
            whole = [token for part in parts for token in part]
            row[: len(whole)] = torch.tensor(whole)
        return filled

    def _split(self, tokens: Sequence[int]) -> Iterator[list[int]]:
        """What stands between sentinels."""
        gap: list[int] = []
        for token in tokens:
            if token >= self.sentinel:
                yield gap
                gap = []
            else:
                gap.append(token)
