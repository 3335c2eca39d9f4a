"""Which split an example belongs to, by its content: duplicates never straddle splits, a new one moves no other."""

import hashlib

from genai_cli.data.base import SplitName


def share_of(text: str) -> float:
    """A number in [0, 1) that the text gives, as good as uniform."""
    return share_of_digest(hashlib.sha256(text.encode()).hexdigest())


def share_of_digest(digest: str) -> float:
    """The same of a sha256 in hex."""
    return int(digest[:13], 16) / 16**13


def split_of(share: float, *, validation: float, test: float) -> SplitName:
    """The lowest `test` of [0, 1) are tested on, the next `validation` validate, the rest is trained on."""
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"
