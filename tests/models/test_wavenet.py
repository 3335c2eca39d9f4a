"""Facts about WaveNet: causal by gradient, as far as it reaches; sums to one; queues change nothing."""

import itertools

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.models.wavenet import WaveNet
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.decoding import draw_tokens

TEXT = Spec("text", (20,), tokenizer=CharTokenizer("\nabc").to_json(), vocabulary_size=4)


def model_of(spec: Spec, **options) -> WaveNet:
    torch.manual_seed(0)
    model = WaveNet(spec, **{"width": 12, "depth": 3, "stacks": 2, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def test_a_token_is_told_by_as_many_before_it_as_it_reaches():
    model = model_of(TEXT).double()
    reach = 2 * (2**3 - 1) + 1  # 15
    embedded = torch.randn(1, 20, 12, dtype=torch.float64, requires_grad=True)
    model.embedding.forward = lambda tokens: embedded
    logits = model(torch.zeros(1, 20, dtype=torch.long)).sum(2)[0]  # (20,), of tokens 1 to 20
    for t in range(20):
        (gradient,) = torch.autograd.grad(logits[t], embedded, retain_graph=True)
        seen = (gradient[0] != 0).any(1)
        first = max(0, t - reach + 1)
        assert seen[first : t + 1].all() and not seen[:first].any() and not seen[t + 1 :].any()


def test_probabilities_of_all_texts_sum_to_one():
    """Of four letters after a given one."""
    model = model_of(TEXT)
    texts = torch.tensor([(2, *rest) for rest in itertools.product(range(4), repeat=4)])
    batch = Batch({"tokens": texts, "mask": torch.ones(256, 4, dtype=torch.bool)}, BatchRandom(0, stop=256))
    nll = model.evaluate(batch)["nll"].double() * 4
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_drawing_with_queues_equals_a_whole_pass_for_each_token():
    model = model_of(TEXT)
    random, tokens = SampleRandom(2, range(4)), torch.full((4, 1), model.tokenizer.start)
    with torch.no_grad():
        for _ in range(40):  # twice a window
            tokens = torch.cat([tokens, draw_tokens(model(tokens)[:, -1], random).unsqueeze(1)], dim=1)
    assert torch.equal(model.sample(SampleRandom(2, range(4)), length=40), tokens[:, 1:])


def test_a_beam_carries_the_queues_along():
    """As wide as all texts, it finds the likeliest of three letters after one."""
    model = model_of(TEXT)
    texts = torch.tensor([(2, *rest) for rest in itertools.product(range(4), repeat=3)])
    with torch.no_grad():
        log_p = model(texts[:, :-1]).log_softmax(2).gather(2, texts[:, 1:, None]).sum((1, 2))
    found = model.sample(SampleRandom(0, range(1)), prompt=torch.tensor([2]), length=3, beam=64)
    assert torch.equal(found[0], texts[log_p.argmax()])


def test_text_goes_on_from_a_prompt_beyond_the_window():
    model = model_of(TEXT)
    prompt = torch.tensor([1, 2, 3])
    drawn = model.sample(SampleRandom(0, range(2)), prompt=prompt, length=40)
    assert drawn.shape == (2, 43) and torch.equal(drawn[:, :3], prompt.expand(2, 3))
    assert not torch.equal(drawn[0], drawn[1])


def test_a_masked_target_does_not_count():
    model = model_of(TEXT)
    tokens = torch.randint(0, 4, (3, 21))
    mask = torch.ones(3, 20, dtype=torch.bool)
    mask[0, 5:] = False
    batch = Batch({"tokens": tokens, "mask": mask}, BatchRandom(0, stop=3))
    figures = model.evaluate(batch)
    assert figures["weight"].tolist() == [5, 20, 20]
    torch.testing.assert_close(model.loss(batch)[0], (figures["nll"] * figures["weight"]).sum() / 45)
    expected = torch.nn.functional.cross_entropy(model(tokens[:1, :5])[0], tokens[0, 1:6])
    torch.testing.assert_close(figures["nll"][0], expected)
