"""What is special to GPT: its figures are exact nats per token, and its decoding equals the model that was trained."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli import runs
from genai_cli.config import Config
from genai_cli.configure import configure
from genai_cli.data.base import Batch, Spec
from genai_cli.data.music_tokens import VoiceTokenizer
from genai_cli.data.tokenizers import ByteTokenizer, CharTokenizer
from genai_cli.data.windows import TokenWindows
from genai_cli.models.gpt import GPT
from genai_cli.nn.next_token import without_padding
from genai_cli.nn.random import BatchRandom, RowRandom, SampleRandom
from genai_cli.overrides import Overrides
from genai_cli.samplers.decoding import draw_tokens
from genai_cli.samplers.generation import generate

CONTEXT = 8
CHARACTERS = "\nabcdefg"


def text_spec(context: int = CONTEXT, characters: str = CHARACTERS) -> Spec:
    tokenizer = CharTokenizer(characters)
    return Spec("text", (context,), tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)


def tiny_gpt(spec: Spec | None = None, **options) -> GPT:
    torch.manual_seed(0)
    return GPT(text_spec() if spec is None else spec, **{**GPT.tiny, **options}).eval()


def far_from_uniform(model: GPT) -> GPT:
    """Larger embeddings, so that an untrained model has preferences to test."""
    with torch.no_grad():
        model.embedding.weight.mul_(50)
    return model


def batch_of(tokens: Tensor, mask: Tensor | None = None) -> Batch:
    """`tokens` (B, T + 1), all targets real unless a mask says otherwise."""
    mask = torch.ones_like(tokens[:, 1:], dtype=torch.bool) if mask is None else mask
    return Batch({"tokens": tokens, "mask": mask}, BatchRandom(0, stop=len(tokens)))


def random_tokens(rows: int = 4, length: int = CONTEXT + 1) -> Tensor:
    return torch.randint(len(CHARACTERS), (rows, length), generator=torch.Generator().manual_seed(1))


# -- the loss and the figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"positions": "learned"}, {"tied": False}, {"activation": "swiglu"}], ids=str)
def test_an_untrained_model_knows_nothing(options: dict) -> None:
    """Its logits are small: ln V nats per token."""
    loss, _ = tiny_gpt(**options).loss(batch_of(random_tokens()))
    assert loss.item() == pytest.approx(math.log(len(CHARACTERS)), abs=0.2)


def test_loss_is_the_mean_log_probability_of_the_next_tokens() -> None:
    model, tokens = far_from_uniform(tiny_gpt()), random_tokens()
    log_p = model(tokens[:, :-1]).log_softmax(-1)
    terms = [log_p[b, t, tokens[b, t + 1]] for b in range(len(tokens)) for t in range(CONTEXT)]
    torch.testing.assert_close(model.loss(batch_of(tokens))[0], -torch.stack(terms).mean())


def test_masked_targets_do_not_count() -> None:
    model, tokens = far_from_uniform(tiny_gpt()), random_tokens()
    mask = torch.arange(CONTEXT) < torch.tensor([[8], [5], [1], [3]])
    other = torch.where(F.pad(mask, (1, 0), value=True), tokens, (tokens + 1) % len(CHARACTERS))
    assert not torch.equal(other, tokens)
    assert torch.equal(model.loss(batch_of(tokens, mask))[0], model.loss(batch_of(other, mask))[0])
    found, expected = (model.evaluate(batch_of(rows, mask)) for rows in (tokens, other))
    assert torch.equal(found["nll"], expected["nll"])
    assert found["weight"].tolist() == [8, 5, 1, 3]
    mean = (found["nll"] * found["weight"]).sum() / found["weight"].sum()
    torch.testing.assert_close(mean, model.loss(batch_of(tokens, mask))[0])


def test_places_after_the_last_target_are_not_read() -> None:
    """Padding is cut off: every target counts all the same, and what is not at the end of all rows stays."""
    model, tokens = far_from_uniform(tiny_gpt()), random_tokens()
    mask = torch.arange(CONTEXT) < torch.tensor([[5], [3], [6], [2]])
    mask[:, 1] = False
    assert without_padding(batch_of(tokens, mask))["tokens"].shape == (4, 7)
    nll = F.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:], reduction="none")  # (B, T)
    torch.testing.assert_close(model.loss(batch_of(tokens, mask))[0], nll[mask].mean())
    torch.testing.assert_close(model.evaluate(batch_of(tokens, mask))["nll"], (nll * mask).sum(1) / mask.sum(1))


def test_figures_of_all_windows_are_those_of_the_text() -> None:
    """Every token of a text but its first is predicted once, from the start of its window on."""
    model, text = far_from_uniform(tiny_gpt()), random_tokens(1, 30)[0]
    split = TokenWindows(text, length=CONTEXT, stride=CONTEXT)
    rows = split.fetch(torch.arange(len(split)))
    figures = model.evaluate(Batch(rows, BatchRandom(0, stop=len(split))))
    total = 0.0
    for place in range(1, len(text)):
        start = (place - 1) // CONTEXT * CONTEXT
        total -= model(text[None, start:place])[0, -1].log_softmax(-1)[text[place]].item()
    assert figures["weight"].sum() == len(text) - 1
    assert (figures["nll"] * figures["weight"]).sum().item() == pytest.approx(total, rel=1e-5)


def test_future_tokens_change_no_prediction() -> None:
    model, tokens = far_from_uniform(tiny_gpt()), random_tokens()[:, :-1]
    for t in range(CONTEXT - 1):
        changed = tokens.clone()
        changed[:, t + 1 :] = (changed[:, t + 1 :] + 1) % len(CHARACTERS)
        torch.testing.assert_close(model(changed)[:, : t + 1], model(tokens)[:, : t + 1])


def test_memorises_a_periodic_text_to_its_entropy() -> None:
    """abcabd...: what follows the first ab of a window is open, 1 bit, for 4 of the 6 starts; the rest is certain."""
    period = torch.tensor([1, 2, 3, 1, 2, 4])
    windows = torch.stack([period.roll(-start).repeat(2)[: CONTEXT + 1] for start in range(6)])  # (6, T + 1)
    model = tiny_gpt(width=32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss, _ = model.loss(batch_of(windows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(4 / 6 * math.log(2) / CONTEXT, abs=3e-3)
    (sample,) = model.eval().sample(SampleRandom(0, [0]), prompt=period, length=30, top_k=1)
    assert torch.equal(sample, period.repeat(6))


# -- sampling -----------------------------------------------------------------------------------------------------


def sample_by_full_forward(model: GPT, random: RowRandom, prompt: Tensor, length: int, **options) -> Tensor:
    """What `sample` documents, without a cache: each token from a full forward pass over its window."""
    tokens = prompt.repeat(random.size, 1)
    start = max(0, len(prompt) - model.context)
    for now in range(len(prompt), len(prompt) + length):
        if now - start > model.context:
            start = now - model.context // 2
        logits = model(tokens[:, start:now])[:, -1]
        tokens = torch.cat((tokens, draw_tokens(logits, random, **options)[:, None]), 1)
    return tokens


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.9}, {"top_k": 1}], ids=str)
@pytest.mark.parametrize("prompt_length", [1, CONTEXT, 2 * CONTEXT + 3])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_sampling_equals_full_forward_within_and_beyond_the_context(
    positions: str, prompt_length: int, options: dict
) -> None:
    model = far_from_uniform(tiny_gpt(positions=positions)).double()
    prompt = random_tokens(1, prompt_length)[0]
    samples = model.sample(SampleRandom(2, range(3)), prompt=prompt, length=3 * CONTEXT, **options)
    expected = sample_by_full_forward(model, SampleRandom(2, range(3)), prompt, 3 * CONTEXT, **options)
    assert torch.equal(samples, expected)


def test_samples_begin_with_the_prompt_and_have_the_length_asked_for() -> None:
    model, prompt = tiny_gpt(), torch.tensor([3, 1, 4])
    samples = model.sample(SampleRandom(0, range(5)), prompt=prompt, length=11)
    assert samples.shape == (5, 14) and samples.dtype == torch.int64
    assert torch.equal(samples[:, :3], prompt.expand(5, -1))
    assert model.sample(SampleRandom(0, range(5))).shape == (5, CONTEXT)
    assert model.sample(SampleRandom(0, range(5)), length=1).shape == (5, 1)


def test_without_a_prompt_text_begins_after_a_line_break() -> None:
    model = far_from_uniform(tiny_gpt())
    newline = torch.tensor([CHARACTERS.index("\n")])
    for prompt in (None, torch.tensor([], dtype=torch.int64)):
        samples = model.sample(SampleRandom(0, range(4)), prompt=prompt, length=20)
        assert torch.equal(samples, model.sample(SampleRandom(0, range(4)), prompt=newline, length=20)[:, 1:])


@pytest.mark.parametrize(
    ("tokenizer", "start"),
    [(CharTokenizer("\t\nab"), 1), (CharTokenizer("ab"), 0), (ByteTokenizer(), 10), (None, 0)],
    ids=["characters", "no line break", "bytes", "no tokenizer"],
)
def test_the_line_break_is_found_in_the_vocabulary(tokenizer, start: int) -> None:
    record = None if tokenizer is None else tokenizer.to_json()
    size = 2 if tokenizer is None else tokenizer.vocabulary_size
    assert tiny_gpt(Spec("text", (CONTEXT,), tokenizer=record, vocabulary_size=size)).tokenizer.start == start


def test_a_sample_does_not_depend_on_its_company() -> None:
    model = far_from_uniform(tiny_gpt()).double()
    together = model.sample(SampleRandom(4, range(6)), length=3 * CONTEXT)
    alone = [model.sample(SampleRandom(4, [index]), length=3 * CONTEXT) for index in range(6)]
    assert torch.equal(torch.cat(alone), together)
    assert len({tuple(row) for row in together.tolist()}) == 6


def test_a_shorter_sample_is_the_beginning_of_a_longer_one() -> None:
    model = far_from_uniform(tiny_gpt()).double()
    longer = model.sample(SampleRandom(4, range(3)), length=30)
    assert torch.equal(model.sample(SampleRandom(4, range(3)), length=13), longer[:, :13])


# -- size and recipe ----------------------------------------------------------------------------------------------


def num_parameters(model: GPT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_are_those_of_the_papers_formula() -> None:
    """12 width^2 a block, two norms a block and one at the end, the embedding once or twice, positions if learned."""
    width, depth, vocabulary = 32, 3, len(CHARACTERS)
    expected = depth * (12 * width**2 + 2 * width) + width + vocabulary * width
    options = {"width": width, "depth": depth, "heads": 4, "kv_heads": None}
    assert num_parameters(tiny_gpt(**options)) == expected
    assert num_parameters(tiny_gpt(**options, tied=False)) == expected + vocabulary * width
    assert num_parameters(tiny_gpt(**options, positions="learned")) == expected + CONTEXT * width
    fewer = num_parameters(tiny_gpt(**{**options, "kv_heads": 1}))
    assert expected - fewer == depth * 2 * width * (width - width // 4)  # three of four key and value heads


def test_no_weight_is_stored_twice() -> None:
    state = tiny_gpt().state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert set(state) == {name for name, _ in tiny_gpt().named_parameters()}


def shakespeare_recipe() -> Config:
    overrides = Overrides(["experiment=gpt_shakespeare"], is_sweep=False, config_dir=None)
    return configure("train", next(overrides.jobs()), overrides).config


def test_recipe_keeps_to_the_budget_of_its_figure() -> None:
    """At most 0.81 M parameters, and 2000 x 12 windows of 64 characters seen."""
    config = shakespeare_recipe()
    assert config.dataset["length"] == 64 and config.dataset["test"] == 0.1
    assert config.train.steps * config.train.batch_size <= 2000 * 12
    characters = "".join(map(chr, range(65)))  # as many as the text has
    assert num_parameters(runs.build_model(config, text_spec(64, characters))) <= 810_000


# -- prompts of many lengths, beams, music ------------------------------------------------------------------------


def test_prompts_of_many_lengths_equal_each_alone() -> None:
    """Greedy, beyond the context: the shared pass over prompts of other lengths changes no row."""
    model = far_from_uniform(tiny_gpt(context := text_spec(CONTEXT))).double()
    assert context.shape == (CONTEXT,)
    prompts = [random_tokens(1, n)[0] for n in (1, 3, CONTEXT - 3)]
    together = model.sample(SampleRandom(0, range(3)), prompts=prompts, length=3, top_k=1)
    for row, prompt in zip(together, prompts, strict=True):
        length = len(row) - len(prompt)
        (alone,) = model.sample(SampleRandom(0, [0]), prompt=prompt, length=min(length, CONTEXT), top_k=1)
        assert torch.equal(row[: len(alone)], alone[: len(row)])


def test_a_beam_with_caches_equals_one_without() -> None:
    model = far_from_uniform(tiny_gpt()).double()
    prompt = random_tokens(1, 2)[0]

    class Uncached:
        def __call__(self, tokens: Tensor) -> Tensor:
            return model(tokens)[:, -1]

        def select(self, rows: Tensor) -> None:
            pass

    expected = list(
        generate(Uncached(), model.tokenizer, SampleRandom(0, range(2)), length=CONTEXT - 3, prompt=prompt, beam=3)
    )
    found = model.sample(SampleRandom(0, range(2)), prompt=prompt, length=CONTEXT - 3, beam=3)
    assert torch.equal(found, torch.stack(expected, 1))


def test_streamed_tokens_are_those_of_the_sample() -> None:
    model = far_from_uniform(tiny_gpt())
    options = {"prompt": random_tokens(1, 3)[0], "length": 7}
    streamed = torch.stack(list(model.stream(SampleRandom(1, [0]), **options)), 1)
    assert torch.equal(streamed, model.sample(SampleRandom(1, [0]), **options))


def test_an_untrained_model_writes_music_that_can_be_read() -> None:
    """Every token drawn is used: as many notes' steps and rests as the length of the piece has room for."""
    tokenizer = VoiceTokenizer(steps_per_quarter=2)
    spec = Spec("music", (40,), tokenizer=tokenizer.to_json(), vocabulary_size=tokenizer.vocabulary_size)
    for row in tiny_gpt(spec).sample(SampleRandom(0, range(20))):
        body = row[: row.tolist().index(0)] if 0 in row else row
        voices = torch.bucketize(body, torch.tensor(tokenizer.offsets), right=True) - 1
        assert torch.equal(voices, torch.arange(len(body)) % 4)
        assert len(body) % 4 == 0
        tokenizer.decode(row)


# -- presets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "vocabulary", "context", "expected"),
    [
        ("gpt_nano", 65, 64, 0.086e6),
        ("gpt", 65, 64, 0.796e6),
        ("gpt_mini", 65, 256, 10.65e6),
        ("gpt2", 50257, 1024, 124.3e6),
    ],
)
def test_presets_have_the_size_that_they_say(preset: str, vocabulary: int, context: int, expected: float) -> None:
    """Counted without memory for the weights."""
    overrides = Overrides([f"model={preset}", "dataset=text"], is_sweep=False, config_dir=None)
    config = configure("train", next(overrides.jobs()), overrides).config
    with torch.device("meta"):
        model = runs.build_model(config, Spec("text", (context,), vocabulary_size=vocabulary))
    assert num_parameters(model) == pytest.approx(expected, rel=0.01)
