"""Molecules as SMILES (Weininger 1988): their tokens, and a reader that knows brackets, rings and valences.

The reader needs no chemistry library. What it accepts is well formed: parentheses and ring numbers are closed, and no
atom of the organic subset (B C N O P S F Cl Br I) has more bonds than it can. It does not ask whether aromatic rings
can be given alternating bonds, nor about rare elements.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy
import torch
from torch import Tensor

from genai_cli.data.properties import Property
from genai_cli.data.tokenizers import Grammar, Tokenizer, describe_character

TOKEN = re.compile(r"\[[^\[\]]+\]|Br|Cl|%\d\d|.", re.DOTALL)
LONG_TOKEN = re.compile(r"\[[^\[\]]+\]|Br|Cl|%\d\d")
PRIVATE = 0xE000  # code points that stand for tokens of several letters while a text is encoded

VALENCES = {
    "B": 3, "C": 4, "N": 3, "O": 2, "P": 5, "S": 6, "F": 1, "Cl": 1, "Br": 1, "I": 1,
    "b": 3, "c": 4, "n": 3, "o": 2, "p": 3, "s": 2,
}  # fmt: skip  # the most bonds of an atom; of an aromatic one, each bond of its ring counted as one
OTHERS = 8  # the valence of any other atom
IN_BRACKETS = re.compile(r"\[\d*([A-Z][a-z]?|[a-z])@*(H\d*)?(\++|-+|[+-]\d+)?(?::\d+)?\]")
BONDS = {"-": 1, "=": 2, "#": 3, ":": 1, "/": 1, "\\": 1, "~": 1}
RING = re.compile(r"\d|%\d\d")


class SmilesTokenizer(Tokenizer):
    """One token an atom, bond, branch or ring number; token 0 stands before a molecule and after it.

    Where molecules are asked to have a property, a token for each of its bins may stand before them in place of 0.
    """

    start = end = 0

    def __init__(self, tokens: Sequence[str], asked: Property | None = None):
        """`tokens`: the vocabulary, distinct and sorted; the token of tokens[i] is i + 1. `asked`: bins come after."""
        if list(tokens) != sorted(set(tokens)) or not tokens:
            raise ValueError("the tokens of a vocabulary must be distinct and sorted")
        self.tokens = list(tokens)
        self.asked = asked
        self.vocabulary_size = 1 + len(self.tokens) + (0 if asked is None else asked.bins)
        self._index = {token: i for i, token in enumerate(self.tokens, start=1)}
        self._private = {token: chr(PRIVATE + i) for i, token in enumerate(self.tokens) if len(token) > 1}
        points = {ord(self._private.get(token, token)): i for token, i in self._index.items()}
        self._ranks = numpy.zeros(max([*points, PRIVATE]) + 1, dtype=numpy.uint8)  # 0: unknown
        self._ranks[list(points)] = list(points.values())

    @classmethod
    def of_molecules(cls, smiles: str) -> "SmilesTokenizer":
        """The tokenizer whose vocabulary is what stands in `smiles`, one molecule a line."""
        long = set(LONG_TOKEN.findall(smiles))
        rest = set(LONG_TOKEN.sub("", smiles)) - {"\n"}
        return cls(sorted(long | rest))

    def encode(self, smiles: str) -> Tensor:
        """(T,) int64, without a token 0. Raises ValueError, with its position, for what is not in the vocabulary."""
        tokens, position = [], 0
        for token in TOKEN.findall(smiles):
            if token not in self._index:
                name = describe_character(token) if len(token) == 1 else repr(token)
                raise ValueError(f"{name} at position {position} is not among the {len(self.tokens)} known tokens")
            tokens.append(self._index[token])
            position += len(token)
        return torch.tensor(tokens, dtype=torch.int64)

    def encode_all(self, molecules: Sequence[str], length: int) -> Tensor:
        """(N, length + 1) uint8: each molecule between token 0 and as many as fill the row. Much quicker than `encode`.

        Every molecule must have fewer than `length` + 1 tokens, all in the vocabulary.
        """
        text = "\n".join(molecules)
        for token, letter in self._private.items():
            text = text.replace(token, letter)
        points = numpy.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        is_break = points == ord("\n")
        sizes = numpy.diff(numpy.flatnonzero(numpy.concatenate(([True], is_break, [True])))) - 1  # (N,)
        ranks = self._ranks[points[~is_break]]
        assert ranks.min(initial=1) > 0 and sizes.max(initial=0) <= length, "a molecule does not fit"
        row = numpy.repeat(numpy.arange(len(sizes)), sizes)
        column = numpy.arange(len(ranks)) - numpy.repeat(numpy.cumsum(sizes) - sizes, sizes)
        filled = numpy.zeros((len(sizes), length + 1), dtype=numpy.uint8)
        filled[row, column + 1] = ranks
        return torch.from_numpy(filled)

    def decode_all(self, rows: Tensor) -> list[str]:
        """The molecules of rows (N, T + 1) as `encode_all` makes them. Much quicker than `decode`."""
        letters = ["\n", *(self._private.get(token, token) for token in self.tokens)]
        points = numpy.array([ord(letter) for letter in letters], dtype="<u4")
        body = numpy.pad(rows[:, 1:].numpy(), ((0, 0), (0, 1)))  # (N, T + 1): the last is no token, but a line break
        is_kept = body > 0
        is_kept[:, -1] = True
        text = points[body[is_kept]].tobytes().decode("utf-32-le")
        for token, letter in self._private.items():
            text = text.replace(letter, token)
        return text.split("\n")[:-1]

    def decode(self, tokens: Tensor) -> str:
        """What stands before the first token 0 that has something before it."""
        self._check_range(tokens)
        body = [token for token in tokens.tolist() if token <= len(self.tokens)]
        while body and body[0] == 0:
            body = body[1:]
        body = body[: body.index(0)] if 0 in body else body
        return "".join(self.tokens[token - 1] for token in body)

    def prompt(self, text: str) -> Tensor:
        """The beginning of a molecule."""
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.encode(text)])

    def asking(self, condition: Mapping[str, float]) -> int:
        """The token that asks for a value of the property. Raises ValueError for what cannot be asked for."""
        if self.asked is None:
            raise ValueError("the run learned no property: train with dataset.condition=logp")
        if list(condition) != [self.asked.name]:
            raise ValueError(f"it learned {self.asked.name}, and nothing else can be asked for")
        return 1 + len(self.tokens) + self.asked.bin_of(condition[self.asked.name])

    def grammar(self, rows: int) -> "SmilesGrammar | None":
        """None where the vocabulary lacks what closes a molecule: a carbon atom."""
        return SmilesGrammar(self, rows) if "C" in self._index else None

    def to_json(self) -> dict[str, Any]:
        asked = {} if self.asked is None else {"asked": self.asked.to_json()}
        return {"name": "smiles", "tokens": self.tokens, **asked}


def smiles_tokenizer_from_json(record: Mapping[str, Any]) -> SmilesTokenizer:
    """Raises ValueError for a property that is none."""
    asked = record.get("asked")
    try:
        known = None if asked is None else Property(**asked)
    except TypeError as error:
        raise ValueError(f"{asked!r} is no property: {error}") from error
    return SmilesTokenizer([str(token) for token in record["tokens"]], known)


@dataclass(frozen=True)
class Reading:
    """A molecule read so far. `push` gives the next, or None where the token cannot stand there."""

    last: str = "start"  # start, atom, ring, bond, open, close, dot
    free: tuple[int, ...] = ()  # of each atom, the bonds that it can still take
    bonds: frozenset[tuple[int, int]] = frozenset()  # of atoms, the earlier one first
    current: int = -1  # the atom that the next one is bound to
    branches: tuple[int, ...] = ()  # the atoms at which branches began, the innermost last
    rings: tuple[tuple[str, int, int], ...] = ()  # open ring numbers: (number, atom, order or 0 where none was given)
    order: int = 0  # of the bond just read; 0: none

    def push(self, token: str) -> "Reading | None":
        after_atom = self.last in ("atom", "ring", "close")
        if token in BONDS:
            return replace(self, last="bond", order=BONDS[token]) if after_atom or self.last == "open" else None
        if token == "(":
            is_right = after_atom and self.free[self.current] > 0
            return replace(self, last="open", branches=(*self.branches, self.current)) if is_right else None
        if token == ")":
            if not after_atom or not self.branches:
                return None
            return replace(self, last="close", current=self.branches[-1], branches=self.branches[:-1])
        if token == ".":
            return replace(self, last="dot", current=-1) if after_atom and not self.branches else None
        if RING.fullmatch(token):
            return self._ring(token) if self.last in ("atom", "ring", "bond") and self.free else None
        return self._atom(token)

    def _atom(self, token: str) -> "Reading | None":
        valence = valence_of(token)
        if valence is None:
            return None
        order = self.order or 1
        free = list(self.free)
        if self.current >= 0:
            if free[self.current] < order or valence < order:
                return None
            free[self.current] -= order
            valence -= order
        bonds = self.bonds | {(self.current, len(free))} if self.current >= 0 else self.bonds
        return replace(self, last="atom", free=(*free, valence), bonds=bonds, current=len(free), order=0)

    def _ring(self, number: str) -> "Reading | None":
        here = self.current
        opened = next((ring for ring in self.rings if ring[0] == number), None)
        free = list(self.free)
        if opened is None:
            order = self.order or 1
            if free[here] < order:
                return None
            free[here] -= order
            rings = (*self.rings, (number, here, self.order))
            return replace(self, last="ring", free=tuple(free), rings=rings, order=0)
        _, there, given = opened
        bond = (min(here, there), max(here, there))
        if here == there or bond in self.bonds:
            return None  # a bond to itself, or a second one to its neighbour
        if given and self.order and given != self.order:
            return None
        order = given or self.order or 1
        extra = order - (given or 1)  # that the atom at the opening was not yet charged for
        if free[here] < order or free[there] < extra:
            return None
        free[here] -= order
        free[there] -= extra
        rings = tuple(ring for ring in self.rings if ring[0] != number)
        return replace(self, last="ring", free=tuple(free), rings=rings, bonds=self.bonds | {bond}, order=0)

    @property
    def may_end(self) -> bool:
        return self.last in ("atom", "ring", "close") and not self.branches and not self.rings

    def tokens_to_end(self) -> int | None:
        """How many tokens a plain way to the end takes, without the end's own; None where there is none.

        It closes what can be closed and otherwise adds carbon atoms.
        """
        reading, count = self, 0
        while not reading.may_end:
            numbers = [ring[0] for ring in reading.rings]
            steps = (reading.push(token) for token in [")", *numbers, "C"])
            following = next((step for step in steps if step is not None), None)
            if following is None:
                return None
            reading, count = following, count + 1
        return count


def problem_of(smiles: str) -> str | None:
    """Why a SMILES is not well formed, with the position; None where it is."""
    reading, position = Reading(), 0
    for token in TOKEN.findall(smiles):
        following = reading.push(token)
        if following is None:
            return f"{token!r} at position {position} cannot stand there"
        reading, position = following, position + len(token)
    if reading.may_end:
        return None
    if reading.rings:
        return f"ring {reading.rings[0][0]} is not closed"
    return "a branch is not closed" if reading.branches else "it ends too early"


class SmilesGrammar(Grammar):
    """Lets through what can still become a well-formed molecule within the length that is left."""

    is_default = False  # how many molecules are valid without it is a figure of the model

    def __init__(self, tokenizer: SmilesTokenizer, rows: int):
        self.tokens = tokenizer.tokens
        self.num_bins = tokenizer.vocabulary_size - 1 - len(self.tokens)  # tokens that stand in place of token 0
        self.readings: list[Reading | None] = [Reading() for _ in range(rows)]  # None: over, or past repair
        self.kinds = [kind_of(token) for token in self.tokens]
        self.device = torch.device("cpu")

    def advance(self, tokens: Tensor) -> None:
        self.device = tokens.device
        for i, token in enumerate(tokens.tolist()):
            reading = self.readings[i]
            token = token if token <= len(self.tokens) else 0
            if reading is not None and (token > 0 or reading.last != "start"):
                self.readings[i] = reading.push(self.tokens[token - 1]) if token > 0 else None

    def allowed(self, remaining: int) -> Tensor:
        rows = [self._allowed(reading, remaining) + [False] * self.num_bins for reading in self.readings]
        return torch.tensor(rows, device=self.device)

    def _allowed(self, reading: Reading | None, remaining: int) -> list[bool]:
        if reading is None:
            return [True] + [False] * len(self.tokens)
        known: dict[str, bool] = {}
        for kind, token in zip(self.kinds, self.tokens, strict=True):
            if kind not in known:
                following = reading.push(token)
                rest = None if following is None else following.tokens_to_end()
                known[kind] = rest is not None and rest + 2 <= remaining  # the token itself, the rest and the end
        return [reading.may_end, *(known[kind] for kind in self.kinds)]

    def select(self, rows: Tensor) -> None:
        self.readings = [self.readings[i] for i in rows.tolist()]

    def check_prompt(self, prompt: Tensor, room: int) -> None:
        reading: Reading | None = Reading()
        for token in prompt[1:].tolist():  # the first stands before the molecule
            name = self.tokens[token - 1] if 0 < token <= len(self.tokens) else "the end"
            reading = reading.push(name)
            if reading is None:
                raise ValueError(f"no molecule begins like the prompt: {name!r} cannot stand there")
        rest = reading.tokens_to_end()
        if rest is None or rest + 1 > room:
            needed = "none can be made of it" if rest is None else f"it takes {rest + 1}, its end included"
            raise ValueError(f"the prompt cannot become a molecule in {room} more tokens: {needed}")


@cache
def valence_of(token: str) -> int | None:
    """The most bonds of an atom to others that are written out; None of what is no atom.

    In brackets, hydrogens take their share, and a charge adds a bond to nitrogen or oxygen and takes one from carbon.
    """
    match = IN_BRACKETS.fullmatch(token)
    if match is None:
        return VALENCES.get(token, OTHERS if token.startswith("[") else None)
    symbol, hydrogens, sign = match.groups()
    if symbol == "H":
        return 1
    if symbol not in VALENCES:
        return OTHERS
    charge = 0 if sign is None else int(sign) if sign[-1].isdigit() else len(sign) * (1 if sign[0] == "+" else -1)
    change = charge if symbol.upper() in "NOPS" else -abs(charge)
    return max(VALENCES[symbol] + change - (int(hydrogens[1:] or 1) if hydrogens else 0), 0)


def kind_of(token: str) -> str:
    """Tokens of one kind may stand in the same places."""
    valence = valence_of(token)
    if valence is not None:
        return f"atom {valence}"
    return f"bond {BONDS[token]}" if token in BONDS else token
