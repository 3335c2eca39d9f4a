"""Languages whose every line is right or wrong: brackets that match, sums that add up.

`genai train model=gpt dataset=formal`

Drawn from a seed; no line of one split is in another. `genai evaluate` can thus say exactly how many of a model's lines
are right (`metrics/formal.py`).
"""

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

from genai_cli.data.base import Dataset, SplitName
from genai_cli.data.documents import DocumentCorpus
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.data.windows import TokenWindows
from genai_cli.rules import NonNegativeInt, PositiveInt

BRACKETS = ("()", "[]", "{}")


class Formal(Dataset):
    """Lines of matching brackets, or of sums such as 17+25=42."""

    modality = "text"
    rules = {
        "language == 'arithmetic' or digits == 3": "digits belongs to language=arithmetic",
        "language == 'brackets' or longest == 24": "longest belongs to language=brackets",
    }

    def __init__(
        self,
        *,
        language: Literal["brackets", "arithmetic"] = "brackets",
        size: PositiveInt = 20_000,  # lines drawn, of which those that come again are left out
        length: PositiveInt = 64,  # tokens that a prediction may look back on
        longest: PositiveInt = 24,  # characters of a line of brackets
        digits: PositiveInt = 3,  # of a summand
        seed: NonNegativeInt = 0,
    ):
        rng = random.Random(seed)
        draw: Callable[[], str] = {
            "brackets": lambda: brackets(rng, 2 * rng.randint(1, max(longest // 2, 1))),
            "arithmetic": lambda: addition(rng, digits),
        }[language]
        lines = dict.fromkeys(draw() + "\n" for _ in range(size))
        self.corpus = DocumentCorpus(
            list(lines), source=f"formal, {language}", tokenizer="char", vocabulary=0, length=length,
            validation=0.05, test=0.1,
        )  # fmt: skip
        self.spec = self.corpus.spec

    def load(self, split: SplitName) -> TokenWindows:
        return self.corpus.split(split)

    def adopt(self, tokenizer: Mapping[str, Any]) -> None:
        self.corpus.adopt(tokenizer_from_json(tokenizer))
        self.spec = self.corpus.spec


def brackets(rng: random.Random, length: int) -> str:
    """A word of `length` brackets, an even number, in which all match."""
    line, open_ones = "", ""
    while len(line) < length:
        must_close = len(open_ones) == length - len(line)
        if open_ones and (must_close or rng.random() < 0.5):
            line, open_ones = line + open_ones[-1], open_ones[:-1]
        else:
            pair = rng.choice(BRACKETS)
            line, open_ones = line + pair[0], open_ones + pair[1]
    return line


def addition(rng: random.Random, digits: int) -> str:
    a, b = rng.randrange(10 ** rng.randint(1, digits)), rng.randrange(10 ** rng.randint(1, digits))
    return f"{a}+{b}={a + b}"
