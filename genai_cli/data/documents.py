"""Documents as examples of text: each belongs to one split, by a hash of its content, and is never cut in two by it."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from genai_cli.data.base import DataError, Spec, SplitName
from genai_cli.data.shares import share_of, split_of
from genai_cli.data.tokenizers import Tokenizer
from genai_cli.data.windows import TokenWindows, check_vocabulary, tokenize


class DocumentCorpus:
    """Many documents, one after the other within their split, with one tokenizer for all."""

    def __init__(
        self, documents: Sequence[str], *, source: str, tokenizer: str, vocabulary: int, length: int,
        validation: float, test: float,
    ):  # fmt: skip
        """`source` names the documents in errors; `validation` and `test` are shares of them."""
        self.source, self.length = source, length
        self.texts: dict[SplitName, str] = {
            name: "".join(
                text for text in documents if split_of(share_of(text), validation=validation, test=test) == name
            )
            for name in ("train", "validation", "test")
        }
        whole = "".join(self.texts.values())  # to train first: it is what byte pairs are learned from
        share = len(self.texts["train"]) / max(len(whole), 1)
        self.tokenizer, _ = tokenize(whole.encode(), tokenizer, source, vocabulary=vocabulary, share_to_learn=share)
        self.spec = Spec(
            "text", (length,), tokenizer=self.tokenizer.to_json(), vocabulary_size=self.tokenizer.vocabulary_size
        )

    def adopt(self, tokenizer: Tokenizer) -> None:
        """Write the documents in the tokens of `tokenizer`. Raises DataError where it has none for some of them."""
        check_vocabulary(tokenizer, "".join(self.texts.values()), self.source)
        self.tokenizer = tokenizer
        self.spec = replace(self.spec, tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)

    def split(self, name: SplitName) -> TokenWindows:
        """Raises DataError where the split is too short."""
        tokens = self.tokenizer.encode(self.texts[name]).to(torch.int32)
        needed = self.length + 1 if name == "train" else 2
        if len(tokens) < needed:
            raise DataError(
                f"the {name} split of {self.source} has {len(tokens)} tokens, fewer than {needed}: "
                "give more text, a smaller dataset.length or another dataset.validation and dataset.test"
            )
        return TokenWindows(tokens, length=self.length, stride=1 if name == "train" else self.length)
