"""How much a set of texts repeats: itself (distinct-n, self-BLEU), or the text that was learned (copied passages).

Words are runs of letters and digits; a Chinese character or a punctuation mark is a word of its own.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

ORDER = 4  # BLEU's longest n-gram
SMOOTHING = 0.1  # in place of no match at all (Chen & Cherry 2014, method 1)
COPY = 50  # characters of a passage that nobody writes twice by chance
_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W{_IDEOGRAPH}]+|[^\w\s]")
Gram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    return _WORD.findall(text)


def ngrams(words: Sequence[str], n: int) -> Counter[Gram]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Of all n-grams of `texts`, as words, the share that differ from each other (Li et al. 2016, arXiv:1510.03055)."""
    counts: Counter[Gram] = sum((ngrams(words, n) for words in texts), Counter())
    return len(counts) / max(counts.total(), 1)


def self_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-4 of each text, as words, with all others as its references (Zhu et al. 2018, arXiv:1802.01886).

    1 where all are the same, near 0 where no two share a passage. Raises ValueError for fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError("a text can only be compared with others: give two or more")
    lengths = [len(words) for words in texts]
    scores = [0.0] * len(texts)
    for n in range(1, ORDER + 1):
        counts = [ngrams(words, n) for words in texts]
        most = _two_highest(counts)
        for i, own in enumerate(counts):
            # An n-gram counts as often as the one other text has it that has it most often (Papineni et al. 2002).
            matched = sum(min(count, most[gram][most[gram][0] == (count, i)][0]) for gram, count in own.items())
            total = max(own.total(), 1)
            scores[i] += math.log(max(matched, SMOOTHING) / total) / ORDER
    return [math.exp(score + _brevity(i, lengths)) for i, score in enumerate(scores)]


def _two_highest(counts: Sequence[Counter[Gram]]) -> dict[Gram, list[tuple[int, int]]]:
    """For each n-gram, its two highest (count, text), of different texts."""
    most: dict[Gram, list[tuple[int, int]]] = {}
    for i, own in enumerate(counts):
        for gram, count in own.items():
            most[gram] = sorted([*most.get(gram, [(0, -1), (0, -1)]), (count, i)], reverse=True)[:2]
    return most


def _brevity(i: int, lengths: Sequence[int]) -> float:
    """The logarithm of BLEU's penalty for a text that is shorter than the other that is nearest in length."""
    own = max(lengths[i], 1)
    nearest = min((abs(other - own), other) for j, other in enumerate(lengths) if j != i)[1]
    return min(0.0, 1 - nearest / own)


def copied(texts: Sequence[str], source: Iterable[str], *, length: int = COPY) -> list[float]:
    """Of each of `texts` the share of its passages of `length` characters that are in `source`, a text in parts.

    0 where a text is too short for one. `source` is read once and may be long: only passages of `texts` are held.
    """
    passages = [[text[i : i + length] for i in range(len(text) - length + 1)] for text in texts]
    wanted = {passage for own in passages for passage in own}
    found: set[str] = set()
    tail = ""
    for part in source:
        part = tail + part
        found.update(wanted.intersection(part[i : i + length] for i in range(len(part) - length + 1)))
        tail = part[max(0, len(part) - length + 1) :]
    return [sum(passage in found for passage in own) / max(len(own), 1) for own in passages]
