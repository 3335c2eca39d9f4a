"""Facts about generation: masks, ends, prompts of many lengths, and a search that finds the likeliest."""

import itertools

import pytest
import torch
from torch import Tensor

from genai_cli.data.music_tokens import VoiceTokenizer
from genai_cli.data.tokenizers import CharTokenizer, FollowGrammar, Numbers
from genai_cli.nn.random import SampleRandom
from genai_cli.samplers.generation import NO_TOKEN, generate

V = 5


class Markov:
    """Logits that the last token decides; counts what it is asked to read."""

    def __init__(self, seed: int = 0, size: int = V):
        self.table = 2 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
        self.calls = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        return self.table[tokens[:, -1]]

    def select(self, rows: Tensor) -> None:
        pass


class Ending(Numbers):
    """Numbers of which 0 is the end."""

    end = 0


def run(predict, tokenizer, rows: int = 4, **options) -> Tensor:
    return torch.stack(list(generate(predict, tokenizer, SampleRandom(3, range(rows)), **options)), 1)


def test_rows_stay_over_once_they_have_ended() -> None:
    drawn = run(Markov(), Ending(V), rows=30, length=20)
    for row in drawn.tolist():
        if 0 in row:
            assert set(row[row.index(0) :]) == {0}
    assert (drawn == 0).any() and (drawn[:, 0] != 0).any()


def test_what_is_not_drawn_any_more_is_not_computed() -> None:
    predict = Markov()
    predict.table[:, 0] = 100  # all end at once
    assert run(predict, Ending(V), length=50).unique().tolist() == [0] and predict.calls == 1


def test_prompts_of_many_lengths_are_as_if_alone() -> None:
    """A row with a prompt of its own gets the tokens that it gets among prompts of other lengths."""
    prompts = [torch.tensor([1]), torch.tensor([2, 3, 1, 4]), torch.tensor([3, 3])]
    together = run(Markov(), Numbers(V), rows=6, length=5, prompts=prompts)
    assert together.shape == (6, 9)
    for i, row in enumerate(together):
        prompt = prompts[i % 3]
        assert torch.equal(row[: len(prompt)], prompt)
    halves = [
        torch.stack(list(generate(Markov(), Numbers(V), SampleRandom(3, part), length=5, prompts=prompts)), 1)
        for part in (range(3), range(3, 6))
    ]
    assert torch.equal(torch.cat(halves), together)


def test_a_grammar_holds_from_the_first_token_on() -> None:
    tokenizer = VoiceTokenizer([[60, 62], [50, 51]], steps_per_quarter=2)
    table = tokenizer.grammar(1).may_follow
    drawn = run(Markov(size=tokenizer.vocabulary_size), tokenizer, rows=20, length=30)
    whole = torch.cat([torch.zeros(20, 1, dtype=torch.int64), drawn], 1)
    for row in whole.tolist():
        stop = row.index(0, 1) if 0 in row[1:] else len(row) - 1
        assert all(table[a, b] for a, b in itertools.pairwise(row[: stop + 1]))
    free = run(Markov(size=tokenizer.vocabulary_size), tokenizer, rows=20, length=30, grammar=False)
    assert not torch.equal(free, drawn)


def test_text_stops_after_the_stop() -> None:
    tokenizer = CharTokenizer("\nabcd")
    for row in run(Markov(), tokenizer, rows=20, length=40, stop="ab").tolist():
        text = tokenizer.decode(torch.tensor([token for token in row if token != NO_TOKEN]))
        assert text.find("ab") in (-1, len(text) - 2)
        assert len(text) == 40 or text.endswith("ab")


def log_p(predict: Markov, row: list[int]) -> float:
    steps = predict.table.double().log_softmax(-1)
    total = 0.0
    for a, b in itertools.pairwise(row):
        total += steps[a, b].item()
        if b == 0:
            break
    return total


@pytest.mark.parametrize("tokenizer", [Numbers(V), Ending(V)], ids=["endless", "with an end"])
def test_a_wide_beam_finds_the_likeliest_sequence(tokenizer) -> None:
    for seed in range(5):
        predict = Markov(seed)
        prompt = torch.tensor([1, 2])
        (found,) = run(predict, tokenizer, rows=1, length=4, prompt=prompt, beam=V**3).tolist()
        sequences = [[2, *rest] for rest in itertools.product(range(V), repeat=4)]
        best = max(log_p(predict, row) if tokenizer.end == 0 else whole_log_p(predict, row) for row in sequences)
        score = log_p(predict, found[1:]) if tokenizer.end == 0 else whole_log_p(predict, found[1:])
        assert found[:2] == [1, 2] and score == pytest.approx(best)


def whole_log_p(predict: Markov, row: list[int]) -> float:
    steps = predict.table.double().log_softmax(-1)
    return sum(steps[a, b].item() for a, b in itertools.pairwise(row))


def test_a_beam_of_one_is_greedy_and_obeys_a_grammar() -> None:
    greedy = run(Markov(), Numbers(V), length=10, top_k=1)
    assert torch.equal(run(Markov(), Numbers(V), length=10, beam=1), greedy)

    class Cycle(Numbers):
        """Each number is followed by the next or the one after it."""

        def grammar(self, rows: int) -> FollowGrammar:
            step = (torch.arange(V)[None] - torch.arange(V)[:, None]) % V
            return FollowGrammar((step == 1) | (step == 2))

    found = run(Markov(), Cycle(V), length=9, beam=3)
    assert set((found.diff(dim=1) % V).flatten().tolist()) <= {1, 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": torch.tensor([1]), "prompts": [torch.tensor([1])]}, "exclude each other"),
        ({"beam": 2, "temperature": 0.5}, "takes no temperature"),
        ({"beam": 2, "stop": "a"}, "takes no stop"),
        ({"grammar": True}, "leave grammar out"),
        ({"stop": ""}, "give some text"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        run(Markov(), Numbers(V), length=3, **options)


def test_a_stop_that_the_vocabulary_cannot_write_is_refused() -> None:
    tokenizer = CharTokenizer("\nabcd")
    with pytest.raises(ValueError, match=r"never comes: '\\\\' .* is not among the 5 known characters; a line break"):
        run(Markov(), tokenizer, length=3, stop="\\n")


def test_temperature_0_draws_nothing() -> None:
    assert torch.equal(
        run(Markov(), Numbers(V), length=9, temperature=0.0), run(Markov(), Numbers(V), length=9, top_k=1)
    )
