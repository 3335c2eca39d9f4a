"""Prompts and their responses, each pair an example. `genai train model=t5 dataset=pairs`

From a file with a JSON object on each line that has "prompt" and "response" (`dataset.path`); without one, a formal
task drawn from a seed: words to be reversed, or sums to be added up. No prompt of one split is in another.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from genai_cli.data.base import DataError, Dataset, Spec, SplitName, TensorSplit
from genai_cli.data.jsonl import parse
from genai_cli.data.shares import share_of, split_of
from genai_cli.data.tokenizers import PairTokenizer, tokenizer_from_json
from genai_cli.data.windows import check_vocabulary, decode_utf8, read_text, tokenize
from genai_cli.rules import Fraction, NonNegativeInt, PositiveInt

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Pairs(Dataset):
    """Prompts and responses: `dataset.path=FILE`, or a task drawn from a seed."""

    modality = "text"
    rules = {
        "tokenizer != 'bpe' or vocabulary > 256": "bpe needs a vocabulary above 256: every byte is a token",
        "tokenizer == 'bpe' or vocabulary == 1024": "vocabulary belongs to tokenizer=bpe",
        "validation > 0 and test > 0 and validation + test < 1": "validation, test must be above 0, together below 1",
        "task == 'addition' or digits == 3": "digits belongs to task=addition",
        "task == 'reverse' or longest == 12": "longest belongs to task=reverse",
        "path is None or (task == 'reverse' and size == 20000 and longest == 12 and digits == 3 and seed == 0)": (
            "task, size, longest, digits and seed belong to pairs that are drawn: leave them or path out"
        ),
    }

    def __init__(
        self,
        *,
        path: str | None = None,
        task: Literal["reverse", "addition"] = "reverse",  # where there is no path
        size: PositiveInt = 20_000,  # pairs drawn, of which those that come again are left out
        longest: PositiveInt = 12,  # letters of a word to be reversed, at least 3
        digits: PositiveInt = 3,  # of a summand
        length: PositiveInt | None = None,  # tokens of a pair; null: those of the longest
        tokenizer: Literal["char", "byte", "bpe"] = "char",
        vocabulary: PositiveInt = 1024,  # tokens of bpe, 256 of them bytes
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
        seed: NonNegativeInt = 0,
    ):
        self.source = f"pairs, {task}" if path is None else str(path)
        pairs = draw_pairs(task, size, longest=longest, digits=digits, seed=seed) if path is None else read_pairs(path)
        shares = {"validation": validation, "test": test}
        self.pairs = {
            name: [(prompt, response) for prompt, response in pairs if split_of(share_of(prompt), **shares) == name]
            for name in ("train", "validation", "test")
        }
        texts = ["".join(prompt + response for prompt, response in part) for part in self.pairs.values()]
        share = len(texts[0]) / max(1, sum(map(len, texts)))
        inner, _ = tokenize(
            "".join(texts).encode(), tokenizer, self.source, vocabulary=vocabulary, share_to_learn=share
        )
        self.length = length
        self._use(PairTokenizer(inner))

    def adopt(self, tokenizer: Mapping[str, Any]) -> None:
        adopted = tokenizer_from_json(tokenizer)
        if not isinstance(adopted, PairTokenizer):
            raise DataError(f"{self.source} is of pairs, and init is of plain text: start from a run of dataset=pairs")
        texts = [text for part in self.pairs.values() for pair in part for text in pair]
        check_vocabulary(adopted.inner, "".join(texts), self.source)
        self._use(adopted)

    def load(self, split: SplitName) -> TensorSplit:
        """`tokens` (B, T + 1) and `mask` (B, T): True where the target is of the response, its end included."""
        if not self.rows[split]:
            raise DataError(f"the {split} split of {self.source} is empty: give more pairs or other shares")
        (length,) = self.spec.shape
        rows = [
            torch.nn.functional.pad(row, (0, length + 1 - len(row)), value=self.tokenizer.end)
            for row in self.rows[split]
        ]
        return TensorSplit({"tokens": torch.stack(rows).to(torch.int32)}, self._with_mask)

    def _use(self, tokenizer: PairTokenizer) -> None:
        """Write all pairs in the tokens of `tokenizer`. Raises DataError where one is too long."""
        self.tokenizer = tokenizer
        self.rows = {
            name: [torch.cat([tokenizer.prompt(prompt), tokenizer.response(response)]) for prompt, response in part]
            for name, part in self.pairs.items()
        }
        longest = max((len(row) for part in self.rows.values() for row in part), default=1) - 1
        if self.length is not None and longest > self.length:
            raise DataError(
                f"a pair of {self.source} has {longest} tokens: give dataset.length={longest} or leave it out"
            )
        self.spec = Spec(
            "text", (self.length or longest,), tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size
        )

    def _with_mask(self, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tokens = rows["tokens"].long()
        is_after = (tokens == self.tokenizer.separator).cumsum(1)[:, :-1] > 0  # (B, T), the separator itself included
        is_open = (tokens[:, 1:-1] != self.tokenizer.end) | ~is_after[:, 1:]  # not yet ended, by the token before
        return {"tokens": tokens, "mask": is_after & torch.nn.functional.pad(is_open, (1, 0), value=True)}


def draw_pairs(task: str, size: int, *, longest: int, digits: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)

    def reverse() -> tuple[str, str]:
        word = "".join(rng.choices(LETTERS, k=rng.randint(min(3, longest), longest)))
        return word, word[::-1]

    def addition() -> tuple[str, str]:
        a, b = rng.randrange(10 ** rng.randint(1, digits)), rng.randrange(10 ** rng.randint(1, digits))
        return f"{a}+{b}", str(a + b)

    draw = {"reverse": reverse, "addition": addition}[task]
    return list(dict.fromkeys(draw() for _ in range(size)))


def read_pairs(path: str) -> list[tuple[str, str]]:
    """The pairs of a JSON-lines file. Raises DataError, naming the line."""
    place = Path(path).expanduser()
    if not place.is_file():
        raise DataError(f"dataset.path={path} is not there: give a file with a JSON object on each line")
    pairs = []
    for number, line in enumerate(decode_utf8(read_text(place), str(place)).splitlines(), start=1):
        if line.strip():
            record = parse(line, f"line {number} of {place}")
            if not all(isinstance(record.get(key), str) for key in ("prompt", "response")):
                raise DataError(
                    f'line {number} of {place} needs texts under "prompt" and "response"; it has {list(record)}'
                )
            pairs.append((record["prompt"], record["response"]))
    if not pairs:
        raise DataError(f'{place} holds no pairs: give lines such as {{"prompt": ..., "response": ...}}')
    return list(dict.fromkeys(pairs))
