"""Repetition in texts: counted by hand, and against a plain reading of BLEU's definition."""

import math
from collections import Counter

import pytest

from genai_cli.metrics.passages import copied, distinct, ngrams, self_bleu, words_of


def test_words_are_runs_of_letters_and_single_chinese_characters() -> None:
    assert words_of("To be, or not—2x") == ["To", "be", ",", "or", "not", "—", "2x"]
    assert words_of("床前明月光。abc") == ["床", "前", "明", "月", "光", "。", "abc"]


def test_distinct_counts_kinds_among_all() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"]]
    assert distinct(texts, 1) == 2 / 6 and distinct(texts, 2) == 2 / 4
    assert distinct([[]], 1) == 0


def bleu(own: list[str], references: list[list[str]]) -> float:
    """Papineni et al. 2002, as it is written there."""
    score = 0.0
    for n in range(1, 5):
        counts, others = ngrams(own, n), [ngrams(reference, n) for reference in references]
        clipped = sum(min(count, max(other[gram] for other in others)) for gram, count in counts.items())
        score += math.log(max(clipped, 0.1) / max(counts.total(), 1)) / 4
    nearest = min((abs(len(reference) - len(own)), len(reference)) for reference in references)[1]
    return math.exp(score + min(0.0, 1 - nearest / len(own)))


def test_self_bleu_is_bleu_against_all_others() -> None:
    texts = [text.split() for text in ("a b c d e f", "a b c d x y z", "q q a b c", "a b c d e f g h")]
    expected = [bleu(own, texts[:i] + texts[i + 1 :]) for i, own in enumerate(texts)]
    assert self_bleu(texts) == pytest.approx(expected)
    assert self_bleu([texts[0]] * 3) == pytest.approx([1, 1, 1])
    with pytest.raises(ValueError, match="two or more"):
        self_bleu(texts[:1])


def test_copies_are_found_across_the_parts_of_a_source() -> None:
    source = ["abcdefgh", "ijklmnop"]
    assert copied(["fghij", "xfghx", "abc"], source, length=3) == pytest.approx([1, 1 / 3, 1])
    assert copied(["ab"], source, length=3) == [0]


def test_an_ngram_is_counted_as_often_as_it_occurs() -> None:
    assert ngrams(["a", "b", "a", "b", "a"], 2) == Counter({("a", "b"): 2, ("b", "a"): 2})
