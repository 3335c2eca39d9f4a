"""How many lines of a text of `dataset=formal` are right: matching brackets, or sums that add up."""

import re
from collections.abc import Sequence

CLOSES = {")": "(", "]": "[", "}": "{"}
ADDITION = re.compile(r"(0|[1-9]\d*)\+(0|[1-9]\d*)=(0|[1-9]\d*)")


def is_right(line: str) -> bool:
    """Whether a line is of one of the two languages and right."""
    sum_of = ADDITION.fullmatch(line)
    if sum_of is not None:
        a, b, total = map(int, sum_of.groups())
        return a + b == total
    open_ones = []
    for character in line:
        if character in CLOSES.values():
            open_ones.append(character)
        elif not open_ones or CLOSES.get(character) != open_ones.pop():
            return False
    return bool(line) and not open_ones


def formal_figures(texts: Sequence[str]) -> dict[str, float]:
    """The share of whole lines (those that a line break ends) that are right, and how many there are."""
    lines = [line for text in texts for line in text.split("\n")[:-1] if line]
    return {"lines": len(lines), "right": sum(map(is_right, lines)) / max(len(lines), 1)}
