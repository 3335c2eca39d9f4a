"""Molecules as examples: one in each row, token 0 before it and after it to the end of the row."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Spec, TensorSplit
from genai_cli.data.properties import values_of
from genai_cli.data.smiles_tokens import TOKEN, SmilesTokenizer

UNASKED_EVERY = 10
_CHUNK = 100_000  # molecules encoded at a time


def molecule_spec(tokenizer: SmilesTokenizer, length: int) -> Spec:
    return Spec("molecules", (length,), tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)


def molecule_split(
    molecules: Sequence[str], tokenizer: SmilesTokenizer, *, length: int, source: str, is_training: bool = False
) -> TensorSplit:
    """`tokens` (B, length + 1) int64 and `mask` (B, length), True up to the first token 0 after the molecule.

    Raises DataError where there is none; all must fit. Where the tokenizer asks for a property, each molecule's own
    stands before it; not before every tenth to train on, so that a model also learns to draw unasked.
    """
    if not molecules:
        raise DataError(f"{source} holds no molecules: give more of them")
    parts = [
        tokenizer.encode_all(molecules[start : start + _CHUNK], length) for start in range(0, len(molecules), _CHUNK)
    ]
    tokens = torch.cat(parts)
    if tokenizer.asked is not None:
        name = tokenizer.asked.name
        for i, value in enumerate(values_of(name, molecules)):
            if value is not None and not (is_training and i % UNASKED_EVERY == 0):
                tokens[i, 0] = tokenizer.asking({name: value})
    return TensorSplit({"tokens": tokens}, with_mask)


def with_mask(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """A target counts where the token before it is not the end of the molecule."""
    tokens = rows["tokens"].long()
    mask = tokens[:, :-1] != 0
    mask[:, 0] = True
    return {"tokens": tokens, "mask": mask}


def longest(molecules: Iterable[str]) -> int:
    """The most tokens that one of them has."""
    by_letters = sorted(molecules, key=len, reverse=True)[:2000]  # a token has at least one letter, mostly just one
    return max((len(TOKEN.findall(smiles)) for smiles in by_letters), default=0)
