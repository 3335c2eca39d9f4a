"""Facts about drawing tokens."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.decoding import (
    draw_tokens,
    filter_logits,
    greedy,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
)

VOCABULARY = 12


def logits(rows: int = 6) -> Tensor:
    return 2 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0))


def kept(filtered: Tensor) -> list[set[int]]:
    """The tokens of each row that may be drawn."""
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in filtered]


@pytest.mark.parametrize("k", [1, 3, VOCABULARY - 1])
def test_top_k_keeps_the_k_likeliest_as_they_are(k: int) -> None:
    filtered = keep_top_k(logits(), k)
    for row, result, tokens in zip(logits(), filtered, kept(filtered), strict=True):
        assert tokens == set(row.argsort(descending=True)[:k].tolist())
        assert all(result[token] == row[token] for token in tokens)


def test_top_k_of_the_whole_vocabulary_or_more_changes_nothing() -> None:
    for k in (VOCABULARY, 10 * VOCABULARY):
        assert torch.equal(keep_top_k(logits(), k), logits())


def test_top_k_keeps_ties_of_the_last_place() -> None:
    assert kept(keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2)) == [{1, 2, 3}]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_top_p_keeps_the_smallest_set_that_holds_p(p: float) -> None:
    for row, tokens in zip(logits(), kept(keep_top_p(logits(), p)), strict=True):
        wanted, mass = set(), 0.0
        for token in row.argsort(descending=True).tolist():
            if mass >= p:
                break
            wanted.add(token)
            mass += row.double().softmax(-1)[token].item()
        assert tokens == wanted


def test_top_p_at_its_ends() -> None:
    assert kept(keep_top_p(logits(), 0.0)) == [{token} for token in greedy(logits()).tolist()]
    assert torch.equal(filter_logits(logits(), top_p=1.0), logits())


def test_top_p_counts_the_mass_that_temperature_and_top_k_leave() -> None:
    probabilities = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    assert kept(keep_top_p(probabilities.log(), 0.5)) == [{0, 1}]
    assert kept(filter_logits(probabilities.log(), top_k=2, top_p=0.5)) == [{0}]  # 0.4 of 0.7
    assert kept(filter_logits(probabilities.log(), temperature=0.1, top_p=0.5)) == [{0}]


def test_one_choice_is_greedy_and_needs_no_random_numbers() -> None:
    for option in ({"top_k": 1}, {"top_p": 0.0}):
        assert torch.equal(draw_tokens(logits(), None, **option), logits().argmax(-1))


def test_low_temperature_is_greedy() -> None:
    assert torch.equal(draw_tokens(logits(), BatchRandom(0, stop=6), temperature=1e-4), greedy(logits()))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}], ids=str)
def test_draws_follow_the_filtered_distribution(options: dict[str, float]) -> None:
    count = 20_000
    row = logits(1)
    drawn = draw_tokens(row.expand(count, -1), BatchRandom(3, stop=count), **options)
    expected = filter_logits(row, **options).softmax(-1)[0].double()
    found = drawn.bincount(minlength=VOCABULARY)
    assert found[expected == 0].sum() == 0
    possible = expected > 0
    test = stats.chisquare(found[possible].numpy(), (expected[possible] / expected.sum() * count).numpy())
    assert test.pvalue > 0.001


def test_temperature_divides_the_logits() -> None:
    torch.testing.assert_close(filter_logits(logits(), temperature=0.5), logits() * 2)


def test_a_row_is_drawn_the_same_in_any_company() -> None:
    together = draw_tokens(logits(), SampleRandom(5, range(6)), temperature=1.5, top_k=9)
    for index in range(6):
        alone = draw_tokens(logits()[index : index + 1], SampleRandom(5, [index]), temperature=1.5, top_k=9)
        assert alone.item() == together[index]


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_min_p_keeps_what_is_likely_beside_the_likeliest(p: float) -> None:
    for row, tokens in zip(logits(), kept(keep_min_p(logits(), p)), strict=True):
        likely = row.double().softmax(-1)
        assert tokens == set((likely >= p * likely.max() * (1 - 1e-12)).nonzero().flatten().tolist())


def test_repetition_makes_what_was_seen_less_likely_and_nothing_else() -> None:
    rows = logits()
    seen = torch.tensor([[0, 3, 3]]).expand(len(rows), -1)
    changed = penalise_repetition(rows, seen, 1.5)
    assert torch.equal(changed[:, [1, 2, *range(4, VOCABULARY)]], rows[:, [1, 2, *range(4, VOCABULARY)]])
    assert (changed[:, [0, 3]] < rows[:, [0, 3]]).all()
    assert torch.equal(penalise_repetition(rows, seen, 1.0), rows)
