"""The nearest valid name, offered wherever a name is refused."""

from collections.abc import Iterable
from difflib import get_close_matches

MAX_LISTED = 12  # names shown where none is near


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The valid name that `name` was most likely meant to be, if any is near."""
    by_folded = {candidate.casefold(): candidate for candidate in names}
    matches = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def advice(name: str, names: Iterable[str], *, before: str = "") -> str:
    """The end of a sentence that refuses `name`: "did you mean X?", or what there is; `before` precedes a near name."""
    names = list(names)
    near = nearest(name, names)
    if near is not None:
        return f"did you mean {before}{near}?"
    return f"there is {listing(names)}" if names else "there is none"


def listing(names: Iterable[str]) -> str:
    """`a, b, c`, or the first dozen and how many more."""
    names = sorted(names)
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
