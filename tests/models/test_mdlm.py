"""Facts about masked diffusion that the contract of all models does not state."""

import math

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.data.music_tokens import VoiceTokenizer
from genai_cli.data.properties import Property
from genai_cli.data.smiles_tokens import SmilesTokenizer, problem_of
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.models.mdlm import MDLM
from genai_cli.nn.random import BatchRandom, SampleRandom

VOCABULARY = 5
MUSIC = VoiceTokenizer([[60, 63], [50, 52]], steps_per_quarter=2)
ASKED = SmilesTokenizer(["C", "N", "O"], Property("logp", 0.0, 5.0, 4))


def build(length: int) -> MDLM:
    torch.manual_seed(0)
    return MDLM(Spec("text", (length,), vocabulary_size=VOCABULARY), **MDLM.tiny).eval()


class Twins(MDLM):
    """A perfect network for windows whose two tokens are equal, and any of the vocabulary."""

    def __init__(self) -> None:
        super().__init__(Spec("text", (2,), vocabulary_size=VOCABULARY), **MDLM.tiny)
        self.asked = 0

    def _logits(self, tokens: Tensor) -> Tensor:
        self.asked += 1
        other = tokens[:, [0, 2, 1]]  # (B, 3)
        logits = torch.zeros(*tokens.shape, VOCABULARY)
        is_known = other != self.hidden
        certain = 50.0 * torch.nn.functional.one_hot(other.clamp(max=VOCABULARY - 1), VOCABULARY)
        return torch.where(is_known[..., None], certain, logits)


def twins(size: int, *key: int) -> Batch:
    random = BatchRandom(*key, stop=size)
    letter = random.integers(VOCABULARY)
    tokens = torch.stack([torch.zeros_like(letter), letter, letter], 1)
    return Batch({"tokens": tokens, "mask": torch.ones(size, 2, dtype=torch.bool)}, random)


def test_the_bound_of_a_perfect_network_is_the_entropy():
    """ln V for both tokens together, in any order: ln V / 2 a token."""
    model, batch = Twins(), twins(40_000, 0)
    exact = math.log(VOCABULARY) / 2
    assert model.loss(batch)[0].item() == pytest.approx(exact, rel=0.03)
    figures = model.evaluate(batch)
    assert figures["bound"].mean().item() == pytest.approx(exact, rel=0.02)
    assert (figures["weight"] == 2).all()


def test_many_steps_draw_from_the_distribution_and_one_step_guesses_each_alone():
    model = Twins()
    together = model.sample(BatchRandom(0, stop=3000), steps=50)
    assert model.asked == 50
    assert (together[:, 0] == together[:, 1]).float().mean() > 0.95  # 1 / 50 are shown in the same step
    assert together[:, 0].bincount(minlength=VOCABULARY).min() > 450
    alone = model.sample(BatchRandom(0, stop=3000), steps=1)
    assert (alone[:, 0] == alone[:, 1]).float().mean().item() == pytest.approx(1 / VOCABULARY, abs=0.03)


def test_every_prediction_sees_both_sides_and_no_hidden_token():
    model = build(6)
    tokens = torch.tensor([[1, 2, 3, model.hidden, 0, 1, 4]])
    logits = model._logits(tokens)[0, 3]
    for place in (0, 1, 2, 4, 5, 6):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % VOCABULARY
        assert not torch.allclose(model._logits(changed)[0, 3], logits), place
    assert logits.shape == (VOCABULARY,)


def test_what_does_not_count_is_neither_hidden_nor_scored():
    model = build(6)
    random = BatchRandom(0, stop=4)
    tokens = random.integers(VOCABULARY, 7)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:, 3:] = False
    seen = []
    forward = model._logits
    model._logits = lambda tokens: seen.append(tokens) or forward(tokens)
    figures = model.evaluate(Batch({"tokens": tokens, "mask": mask}, random))
    assert all(torch.equal(each[:, 4:], tokens[:, 4:]) and torch.equal(each[:, 0], tokens[:, 0]) for each in seen)
    assert any((each[:, 1:4] == model.hidden).any() for each in seen)
    assert (figures["weight"] == 3).all()


def test_a_prompt_begins_the_window():
    model = build(6)
    drawn = model.sample(SampleRandom(0, range(3)), prompt=torch.tensor([4, 0, 2]))
    assert drawn.shape == (3, 6) and (drawn[:, :3] == torch.tensor([4, 0, 2])).all()
    assert (drawn < VOCABULARY).all()
    with pytest.raises(ValueError, match="a prompt of 6 tokens leaves nothing of the 6"):
        model.sample(SampleRandom(0, range(3)), prompt=torch.zeros(6, dtype=torch.long))


def test_text_begins_after_a_line_break():
    spec = Spec("text", (4,), tokenizer=CharTokenizer("\nabc").to_json(), vocabulary_size=4)
    assert MDLM(spec, **MDLM.tiny).tokenizer.start == 0
    assert MDLM(Spec("text", (4,), tokenizer={"name": "byte"}, vocabulary_size=256), **MDLM.tiny).tokenizer.start == 10


def of_music(context: int = 16) -> MDLM:
    torch.manual_seed(0)
    spec = Spec("music", (context,), tokenizer=MUSIC.to_json(), vocabulary_size=MUSIC.vocabulary_size)
    return MDLM(spec, **MDLM.tiny).eval()


@pytest.mark.parametrize("steps", [None, 5, 1])
def test_music_is_whole_in_however_few_steps_it_is_shown(steps: int | None) -> None:
    drawn = of_music().sample(SampleRandom(0, range(20)), steps=steps)
    may_follow = MUSIC.grammar(1).may_follow
    assert may_follow[0, drawn[:, 0]].all() and may_follow[drawn[:, :-1], drawn[:, 1:]].all()


def test_without_the_grammar_music_of_an_untrained_model_cannot_be_read() -> None:
    drawn = of_music().sample(SampleRandom(0, range(20)), grammar=False)
    assert not MUSIC.grammar(1).may_follow[drawn[:, :-1], drawn[:, 1:]].all(1).any()


def molecules(context: int = 10) -> MDLM:
    torch.manual_seed(0)
    spec = Spec("molecules", (context,), tokenizer=ASKED.to_json(), vocabulary_size=ASKED.vocabulary_size)
    return MDLM(spec, **MDLM.tiny).eval()


def test_a_molecule_that_is_asked_for_begins_with_the_value() -> None:
    """The token stands before the window, where the network sees it; it is no part of the molecule."""
    model, seen = molecules(), []
    forward = model._logits
    model._logits = lambda tokens: seen.append(tokens) or forward(tokens)
    asking = ASKED.asking({"logp": 2.5})
    for grammar in (False, True):
        drawn = model.sample(SampleRandom(0, range(4)), prompt=torch.tensor([asking, 1]), grammar=grammar)
        assert drawn.shape == (4, 10) and (drawn[:, 0] == 1).all()
        assert all((tokens[:, 0] == asking).all() for tokens in seen)
        assert all(problem_of(ASKED.decode(row)) is None for row in drawn) or not grammar


def test_a_grammar_draws_from_left_to_right_and_takes_no_steps() -> None:
    model, seen = molecules(), []
    forward = model._logits
    model._logits = lambda tokens: seen.append((tokens == model.hidden).sum(1)) or forward(tokens)
    model.sample(SampleRandom(0, range(3)), grammar=True)
    assert [set(each.tolist()) for each in seen] == [{number} for number in range(10, 10 - len(seen), -1)]
    with pytest.raises(ValueError, match="takes no steps=3"):
        model.sample(SampleRandom(0, [0]), grammar=True, steps=3)
