"""Draws of a whole sequence, of which each token allows or forbids the next: exact, and always possible."""

from itertools import product

import pytest
import torch

from genai_cli.data.music_tokens import EventTokenizer, VoiceTokenizer
from genai_cli.nn.random import SampleRandom
from genai_cli.samplers.chains import Chain

ALLOWED = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.bool)
LOGITS = torch.tensor([[0.3, 1.0, -0.5, 2.0], [1.5, 0.0, 0.7, -1.0], [0.0, 0.2, 2.0, 1.0]])  # (T, V)


def probabilities() -> dict[tuple[int, ...], float]:
    """By going through all 64 sequences."""
    p, weights = LOGITS.double().softmax(1), {}
    for sequence in product(range(4), repeat=3):
        is_allowed = all(ALLOWED[a, b] for a, b in zip((0, *sequence), sequence, strict=False))
        weights[sequence] = float(is_allowed) * float(
            torch.stack([p[t, token] for t, token in enumerate(sequence)]).prod()
        )
    total = sum(weights.values())
    return {sequence: weight / total for sequence, weight in weights.items()}


def test_a_draw_has_the_probability_of_its_tokens_given_that_all_are_allowed() -> None:
    count = 40_000
    threshold = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    before = torch.zeros(count, dtype=torch.int64)
    drawn = Chain(ALLOWED).draw(LOGITS.expand(count, -1, -1), before, threshold)
    rows, counts = drawn.unique(dim=0, return_counts=True)
    found = {tuple(row): number / count for row, number in zip(rows.tolist(), counts.tolist(), strict=True)}
    for sequence, expected in probabilities().items():
        assert found.get(sequence, 0) == pytest.approx(expected, abs=4 * (expected / count) ** 0.5), sequence


def test_tokens_that_the_table_treats_alike_are_of_one_kind() -> None:
    voices = VoiceTokenizer(steps_per_quarter=2)
    assert Chain(ALLOWED).num_kinds == 3  # tokens 1 and 2 are alike
    assert Chain(voices.grammar(1).may_follow).num_kinds == 5  # token 0, and four voices
    assert Chain(EventTokenizer(steps_per_quarter=2).grammar(1).may_follow).num_kinds == 4


def test_the_unlikeliest_sequence_is_found_where_it_alone_is_allowed() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, :, 0] = 900.0  # whose exponential is no number
    only = torch.zeros(4, 4, dtype=torch.bool)
    only[0, 3] = only[3, 2] = only[2, 1] = True
    drawn = Chain(only).draw(logits, torch.tensor([0]), SampleRandom(0, [0]).uniform(3))
    assert drawn.tolist() == [[3, 2, 1]]


def test_what_cannot_be_completed_is_refused() -> None:
    logits = torch.full((1, 2, 4), -torch.inf)
    logits[0, 0, 1] = logits[0, 1, 2] = 0  # 2 may not follow 1
    with pytest.raises(ValueError, match="no sequence that can be read back"):
        Chain(ALLOWED).draw(logits, torch.tensor([0]), torch.zeros(1, 2))
