"""What is special to BERT: which tokens are hidden and how, that both sides are seen, and what unmasking keeps."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.data.music_tokens import VoiceTokenizer
from genai_cli.data.smiles_tokens import SmilesTokenizer, problem_of
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.media.midi import Note, Score, midi_bytes
from genai_cli.models.bert import BERT
from genai_cli.nn.random import BatchRandom, SampleRandom

TOKENIZER = CharTokenizer("\nabcdefg")
MUSIC = VoiceTokenizer([[60, 63], [50, 52]], steps_per_quarter=2)


def tiny_bert(context: int = 8, **options) -> BERT:
    torch.manual_seed(0)
    spec = Spec("text", (context,), tokenizer=TOKENIZER.to_json(), vocabulary_size=TOKENIZER.vocabulary_size)
    return BERT(spec, **{**BERT.tiny, **options}).eval()


def batch_of(tokens: Tensor, mask: Tensor | None = None) -> Batch:
    mask = torch.ones_like(tokens[:, 1:], dtype=torch.bool) if mask is None else mask
    return Batch({"tokens": tokens, "mask": mask}, BatchRandom(0, stop=len(tokens)))


def test_of_the_chosen_tokens_80_percent_are_hidden_10_replaced_10_left() -> None:
    model = tiny_bert(100)
    tokens = torch.randint(8, (2000, 100), generator=torch.Generator().manual_seed(0))
    chosen, seen = model.hide(tokens, BatchRandom(1, stop=2000))
    assert chosen.shape == (2000, 15) and all(len(set(row)) == 15 for row in chosen.tolist())
    others = torch.ones_like(tokens).scatter(1, chosen, 0).bool()
    assert torch.equal(seen[others], tokens[others])
    at = seen.gather(1, chosen)
    original = tokens.gather(1, chosen)
    assert (at == model.mask_token).float().mean() == pytest.approx(0.8, abs=0.01)
    # A replaced token is by chance the same in one of 8 cases.
    assert ((at != model.mask_token) & (at != original)).float().mean() == pytest.approx(0.1 * 7 / 8, abs=0.01)
    assert (at == original).float().mean() == pytest.approx(0.1 + 0.1 / 8, abs=0.01)
    counts = chosen.flatten().bincount(minlength=100)
    assert counts.min() > 200 and counts.max() < 400  # every place alike: 300 times


def test_every_place_sees_both_sides() -> None:
    model = tiny_bert()
    embedded = model.embedding(torch.randint(8, (1, 8))).detach().requires_grad_()
    features = model.transformer(embedded)
    for t in range(8):
        (gradient,) = torch.autograd.grad(features[0, t, 0], embedded, retain_graph=True)
        assert (gradient[0].abs().sum(1) > 0).all()


def test_what_is_no_data_is_not_counted() -> None:
    tokens = torch.randint(8, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(8) < torch.tensor([[8], [4], [1], [0]])
    model = tiny_bert(mask_rate=1.0)
    figures = model.evaluate(batch_of(tokens, mask))
    assert figures["weight"].tolist() == [8, 4, 1, 0]
    loss, _ = model.loss(batch_of(tokens, mask))
    mean = (figures["masked_nll"] * figures["weight"]).sum() / figures["weight"].sum()
    torch.testing.assert_close(loss, mean)


def test_the_room_after_a_molecule_is_learned_too() -> None:
    tokenizer = SmilesTokenizer(["C", "N"])
    spec = Spec("molecules", (6,), tokenizer=tokenizer.to_json(), vocabulary_size=3)
    tokens = torch.tensor([[0, 1, 2, 0, 0, 0, 0]])
    window, is_real = BERT(spec, **BERT.tiny).window(batch_of(tokens, tokens[:, :-1] != 0))
    assert window.tolist() == [[1, 2, 0, 0, 0, 0]] and is_real.all()


def test_a_prompt_is_kept_and_its_masks_are_filled() -> None:
    model = tiny_bert()
    prompt = model.read_prompt("a[MASK]c[MASK:3]")
    assert prompt.tolist() == [1, 8, 3, 8, 8, 8]
    for options in ({}, {"steps": 1}, {"order": "confidence", "steps": 2}, {"top_k": 1}):
        samples = model.sample(SampleRandom(0, range(20)), prompt=prompt, **options)
        assert samples.shape == (20, 6) and samples.max() < 8
        assert (samples[:, [0, 2]] == torch.tensor([1, 3])).all()


@pytest.mark.parametrize(("prompt", "words"), [("abc", "hides nothing"), ("[MASK:9]", "9 tokens; between 1 and 8")])
def test_a_prompt_that_cannot_be_filled_is_refused(prompt: str, words: str) -> None:
    model = tiny_bert()
    with pytest.raises(ValueError, match=words):
        model.sample(SampleRandom(0, [0]), prompt=model.read_prompt(prompt))


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_unmasking_reaches_a_known_distribution(order: str) -> None:
    """Trained on rows of one letter: the first place filled is open, the others follow it."""
    rows = torch.arange(1, 5)[:, None].repeat(1, 9)  # aaaa..., bbbb..., cccc..., dddd...
    batch = batch_of(rows.repeat(8, 1))
    model = tiny_bert(width=32, mask_rate=1.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        model.num_chosen = 1 + step % 8  # as in unmasking: all hidden to one hidden
        batch.random = BatchRandom(step, stop=32)
        loss, _ = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    samples = model.eval().sample(SampleRandom(3, range(200)), order=order)
    is_pure = (samples == samples[:, :1]).all(1)
    assert (
        is_pure.float().mean() > 0.75
    )  # of independent places 0.0002; a tenth of what is seen is replaced in training
    if order == "random":
        assert set(samples[is_pure, 0].tolist()) == {1, 2, 3, 4}


def of_music(context: int = 16) -> BERT:
    torch.manual_seed(0)
    spec = Spec("music", (context,), tokenizer=MUSIC.to_json(), vocabulary_size=MUSIC.vocabulary_size)
    return BERT(spec, **BERT.tiny).eval()


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"order": "confidence", "steps": 5}, {"top_k": 1}])
def test_music_is_whole_in_whatever_order_it_is_filled_in(options: dict) -> None:
    drawn = of_music().sample(SampleRandom(0, range(20)), **options)
    may_follow = MUSIC.grammar(1).may_follow
    assert may_follow[0, drawn[:, 0]].all() and may_follow[drawn[:, :-1], drawn[:, 1:]].all()


def test_a_bridge_between_two_scores(tmp_path: Path) -> None:
    score = Score((Note(0, 2, 61, 0), Note(0, 2, 50, 1)), 2)
    path = tmp_path / "two.mid"
    path.write_bytes(midi_bytes(score))
    model, given = of_music(), MUSIC.encode(score)[1:]
    prompt = model.read_prompt(f"{path}[MASK:4]{path}")
    drawn = model.sample(SampleRandom(0, range(10)), prompt=prompt)
    assert (drawn[:, :4] == given).all() and (drawn[:, 8:] == given).all()
    assert (drawn != MUSIC.end).all()  # it does not end before what is given
    assert MUSIC.grammar(1).may_follow[drawn[:, :-1], drawn[:, 1:]].all()
    with pytest.raises(ValueError, match="no sequence that can be read back"):
        model.sample(SampleRandom(0, [0]), prompt=model.read_prompt(f"{path}[MASK:3]{path}"))


def test_a_grammar_of_molecules_needs_its_masks_at_the_end() -> None:
    tokenizer = SmilesTokenizer(["(", ")", "1", "=", "C", "N", "O"])
    spec = Spec("molecules", (12,), tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)
    torch.manual_seed(0)
    model = BERT(spec, **BERT.tiny).eval()
    drawn = model.sample(SampleRandom(0, range(10)), prompt=model.read_prompt("CC(=O)[MASK:6]"), grammar=True)
    texts = [tokenizer.decode(row) for row in drawn]
    assert all(text.startswith("CC(=O)") and problem_of(text) is None for text in texts)
    for text, options, words in (
        ("C[MASK]C[MASK]", {}, "at the end of the prompt only"),
        ("C[MASK:4]", {"steps": 2}, "no steps and no order"),
        ("C)[MASK:4]", {}, "'\\)' cannot stand there"),
        ("C(C[MASK]", {}, "takes 2, its end included"),
    ):
        with pytest.raises(ValueError, match=words):
            model.sample(SampleRandom(0, [0]), prompt=model.read_prompt(text), grammar=True, **options)
