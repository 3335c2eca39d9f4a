"""What is special to T5: the encoder sees both ways, the decoder only back, and answers are right word for word."""

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.data.pairs import Pairs
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.models.t5 import T5, ResponsePredictor
from genai_cli.nn.encoder_decoder import RelativeBias
from genai_cli.nn.random import BatchRandom, SampleRandom

PAIRS = Pairs(size=200, longest=4)
POSITIONS = ("relative", "rotary")


def tiny_t5(positions: str = "relative", spec: Spec | None = None) -> T5:
    torch.manual_seed(0)
    model = T5(spec or PAIRS.spec, **{**T5.tiny, "positions": positions}).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(50)  # an untrained model that has preferences
    return model


def rows(count: int = 6) -> torch.Tensor:
    return PAIRS.load("train").fetch(torch.arange(count))["tokens"]


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_prompt_is_seen_both_ways_and_the_response_backwards(positions):
    """By gradient: the logit after token t of a response depends on every token of the prompt and on those up to t."""
    model, tokens, cut = tiny_t5(positions), rows(1), torch.tensor([4])
    embedded = model.embedding(tokens).detach().requires_grad_()
    memory = model.transformer.encode(embedded, cut)
    (seen,) = torch.autograd.grad(memory[0, 0].square().sum(), embedded, retain_graph=True)
    assert (seen[0].abs().sum(1) > 0).tolist() == [place < 4 for place in range(tokens.shape[1])]
    features = model.transformer.decode(embedded[:, :-1], memory, cut)
    for place in range(3, tokens.shape[1] - 1):
        (seen,) = torch.autograd.grad(features[0, place].square().sum(), embedded, retain_graph=True)
        assert (seen[0].abs().sum(1) > 0).tolist() == [k <= place for k in range(tokens.shape[1])]


@pytest.mark.parametrize("positions", POSITIONS)
def test_cached_decoding_equals_the_full_forward(positions):
    """Prompts of different lengths in one batch, and rows chosen anew on the way, as a beam does."""
    model, tokens, cut = tiny_t5(positions), rows(3), torch.tensor([2, 4, 5])
    logits = model(tokens, cut)
    prompts = tokens[:, :5]
    predict = ResponsePredictor(model, prompts, cut)
    for now in range(2, 7):
        found = predict(tokens[:, :now])
        for row in range(3):
            if now >= cut[row]:
                torch.testing.assert_close(found[row], logits[row, now - 1], atol=1e-5, rtol=1e-4)
    predict.select(torch.tensor([2, 0]))
    torch.testing.assert_close(predict(tokens[[2, 0], :7]), logits[[2, 0], 6], atol=1e-5, rtol=1e-4)


def test_a_response_depends_on_its_own_prompt_alone():
    model, tokens = tiny_t5(), rows(3)
    prompts = [tokens[0, :4], tokens[1, :6], tokens[2, :5]]
    together = model.sample(SampleRandom(3, range(3)), prompts=prompts, length=4)
    for row, prompt in enumerate(prompts):
        alone = model.sample(SampleRandom(3, [row]), prompts=[prompt], length=4)[0]
        shared = min(together.shape[1], len(alone))
        assert torch.equal(together[row, :shared], alone[:shared])
    with pytest.raises(ValueError, match="more than the"):
        model.sample(SampleRandom(3, range(1)), prompt=prompts[0], length=99)


def test_a_prompt_and_its_response_fill_a_window_and_no_more():
    model, prompt = tiny_t5(), rows(1)[0, :3]
    random, room = SampleRandom(0, range(2)), model.context + 1 - 3
    assert model.sample(random, prompt=prompt, length=room).shape == (2, model.context + 1)
    with pytest.raises(ValueError, match=f"a prompt of 3 tokens and length={room + 1} are more than"):
        model.sample(random, prompt=prompt, length=room + 1)


def test_a_prompt_that_leaves_no_room_is_asked_for_its_last_token():
    """There is always something to answer: a response of no tokens would be exact for nothing."""
    model = tiny_t5()
    tokens = torch.full((1, model.context + 1), 4)
    tokens[0, -1] = model.tokenizer.separator
    mask = torch.ones(1, model.context, dtype=torch.bool)
    figures = model.evaluate(Batch({"tokens": tokens, "mask": mask}, BatchRandom(0, stop=1)))
    logits = model(tokens, torch.tensor([model.context]))[0, -1]
    torch.testing.assert_close(figures["nll"][0], -logits.log_softmax(0)[model.tokenizer.separator])


def test_what_is_exact_by_teacher_forcing_is_what_greedy_decoding_gives():
    """Trained a little: some responses are right, and the two agree on which."""
    split = PAIRS.load("train")
    model = tiny_t5()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(60):
        batch = Batch(split.fetch(torch.arange(12)), BatchRandom(step, stop=12))
        optimizer.zero_grad()
        model.loss(batch)[0].backward()
        optimizer.step()
    batch = Batch(split.fetch(torch.arange(24)), BatchRandom(0, stop=24))
    exact = model.evaluate(batch)["exact"].bool()
    assert 0 < exact.sum() < 24
    drawn = model.pictures(batch)["responses"]
    texts = [PAIRS.tokenizer.decode(row[row >= 0]) for row in drawn]
    right = ["\n".join(pair) for pair in PAIRS.pairs["train"][:24]]
    assert [text == wanted for text, wanted in zip(texts, right, strict=True)] == exact.tolist()


def test_buckets_of_distance_are_exact_near_and_coarse_far():
    """As in the paper: 32 buckets, 128 the farthest distance told apart."""
    back = RelativeBias(2, both_sides=False)
    assert back.bucket(torch.tensor([-5, 0, 1, 15, 16, 127, 128, 1000])).tolist() == [0, 0, 1, 15, 16, 31, 31, 31]
    # 16 + floor(16 log(distance / 16) / log(128 / 16))
    assert back.bucket(torch.tensor([17, 20, 32, 64, 100])).tolist() == [16, 17, 21, 26, 30]
    both = RelativeBias(2, both_sides=True)
    assert both.bucket(torch.tensor([0, 7, -1, -7, 1000, -1000])).tolist() == [0, 7, 17, 23, 15, 31]


TEXT = CharTokenizer("\nabcdefgh")


def of_spans(context: int = 20, **options) -> T5:
    spec = Spec("text", (context,), tokenizer=TEXT.to_json(), vocabulary_size=TEXT.vocabulary_size)
    torch.manual_seed(0)
    return T5(spec, **{**T5.tiny, "objective": "spans", "hidden_rate": 0.3, **options}).eval()


def text_batch(count: int = 4, context: int = 20) -> Batch:
    tokens = (torch.arange(count)[:, None] * 3 + torch.arange(context + 1)) % 9
    return Batch({"tokens": tokens, "mask": torch.ones(count, context, dtype=torch.bool)}, BatchRandom(0, stop=count))


def test_what_is_hidden_is_scored_with_its_sentinels_and_nothing_else() -> None:
    model, batch = of_spans(), text_batch()
    rows, counts, cut = model._task(batch)
    assert rows.shape[1] == model.spans.row_length and (cut == model.spans.input_length).all()
    assert counts.all()
    num_scored = (torch.arange(rows.shape[1] - 1) >= cut[:, None] - 1).sum(1)
    assert (num_scored == model.spans.num_hidden + model.spans.num_sentinels).all()
    batch["mask"][:, 10:] = False  # the text ends there
    _, counts, _ = model._task(Batch(dict(batch), BatchRandom(0, stop=4)))
    assert (~counts).any() and ((rows[:, 1:] >= TEXT.vocabulary_size) <= counts).all()


def test_gaps_are_filled_in_and_the_rest_is_kept() -> None:
    model = of_spans()
    prompt = model.read_prompt("ab[MASK]cd[MASK]")
    for options in ({}, {"length": 2}, {"beam": 3}, {"top_k": 1}):
        for row in model.sample(SampleRandom(0, range(10)), prompt=prompt, **options):
            text = TEXT.decode(row[row >= 0])
            assert text.startswith("ab") and "cd" in text[2:] and len(text) >= 4
            assert len(text) <= (6 if "length" in options else 20)


def test_prompts_with_different_gaps_take_turns() -> None:
    model = of_spans()
    prompts = [model.read_prompt("ab[MASK]"), model.read_prompt("[MASK]c[MASK]dddd")]
    together = model.sample(SampleRandom(0, range(6)), prompts=prompts)
    for row, tokens in enumerate(together):
        text = TEXT.decode(tokens[tokens >= 0])
        assert text.startswith("ab") if row % 2 == 0 else text.endswith("dddd")
    second = model.sample(SampleRandom(0, [2, 3]), prompts=prompts)
    assert torch.equal(second, together[2:4])


def test_without_a_prompt_a_whole_window_is_written() -> None:
    samples = of_spans().sample(SampleRandom(0, range(5)))
    assert samples.shape == (5, 20) and samples.min() >= 0 and samples.max() < TEXT.vocabulary_size


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ("abc", {}, "it has 0 gaps"),
        ("[MASK]" * 3 + "a", {}, "learned to fill in 1 to 2"),
        ("a[MASK]", {"stop": "b"}, "leave stop out"),
        ("a[MASK]", {"grammar": True}, "leave it out"),
        ("a" * 30 + "[MASK]", {}, "a prompt of 31 tokens"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(prompt: str, options: dict, words: str) -> None:
    model = of_spans()
    with pytest.raises(ValueError, match=words):
        model.sample(SampleRandom(0, [0]), prompt=model.read_prompt(prompt), **options)


def test_spans_are_of_plain_text() -> None:
    with pytest.raises(ValueError, match="a plain text, which the data are not"):
        T5(PAIRS.spec, objective="spans")


def test_a_run_of_spans_learns_to_fill_them_in() -> None:
    """Texts of one letter each: of a gap, only the length is open."""
    model = of_spans(width=32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rows = torch.arange(1, 9)[:, None].repeat(1, 21)
    mask = torch.ones(8, 20, dtype=torch.bool)
    for step in range(60):
        loss, _ = model.loss(Batch({"tokens": rows, "mask": mask}, BatchRandom(step, stop=8)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for letter in "bfh":
        prompt = model.read_prompt(f"{letter * 8}[MASK]{letter * 8}")
        for row in model.sample(SampleRandom(0, range(5)), prompt=prompt, top_k=2):
            assert set(TEXT.decode(row[row >= 0])) == {letter}
