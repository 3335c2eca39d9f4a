"""The types that a configuration key may have, with the rule that its value must obey.

A constructor's annotations are its schema: `latent_dim: PositiveInt = 100` is all that it takes for
`model.latent_dim=0` to be refused in words, before torch is imported (see `registry.py`).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Rule:
    """A condition on one value, and the words for it: "must be {words}"."""

    words: str
    holds: Callable[[Any], bool]


PositiveInt = Annotated[int, Rule("at least 1", lambda value: value >= 1)]
NonNegativeInt = Annotated[int, Rule("at least 0", lambda value: value >= 0)]
PositiveFloat = Annotated[float, Rule("above 0", lambda value: 0 < value < math.inf)]
NonNegativeFloat = Annotated[float, Rule("at least 0", lambda value: 0 <= value < math.inf)]
FiniteFloat = Annotated[float, Rule("a finite number", math.isfinite)]
# A share that may be zero but not all: a dropout rate, a moment's decay.
Fraction = Annotated[float, Rule("at least 0 and below 1", lambda value: 0 <= value < 1)]
Probability = Annotated[float, Rule("between 0 and 1", lambda value: 0 <= value <= 1)]
# The standard deviation of steps under the profile of an average, in shares of the run (engine/posthoc_ema.py); an
# average of all steps alike has 0.289.
AverageLength = Annotated[float, Rule("above 0 and at most 0.28", lambda value: 0 < value <= 0.28)]
# Names and places.
FolderName = Annotated[str, Rule("the path of a folder", lambda value: value.strip() != "" and "\0" not in value)]
Duration = Annotated[
    str, Rule("a time such as 90s, 10min or 1h", re.compile(r"(?!0+(\.0*)?[a-z])\d+(\.\d+)?(s|min|h)").fullmatch)
]
SECONDS = {"min": 60.0, "s": 1.0, "h": 3600.0}  # of each unit of a Duration
RunName = Annotated[str, Rule("made of letters, digits and _ + - .", re.compile(r"[\w+-][\w.+-]{0,199}").fullmatch)]
CheckpointName = Annotated[str, Rule("last, best or a step", re.compile(r"last|best|\d{1,18}").fullmatch)]


def seconds_of(duration: str | None) -> float | None:
    """90s, 10min or 1h in seconds."""
    if duration is None:
        return None
    unit = next(unit for unit in SECONDS if duration.endswith(unit))
    return float(duration.removesuffix(unit)) * SECONDS[unit]
