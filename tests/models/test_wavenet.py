"""Facts about WaveNet: causal by gradient, as far as it reaches; sums to one; queues change nothing."""

import itertools

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.models.wavenet import WaveNet
from genai_cli.nn import mu_law
from genai_cli.nn.random import BatchRandom, SampleRandom, inverse_cdf
from genai_cli.samplers.decoding import draw_tokens

TEXT = Spec("text", (20,), tokenizer=CharTokenizer("\nabc").to_json(), vocabulary_size=4)


def model_of(spec: Spec, *, std: float = 0.4, **options) -> WaveNet:
    torch.manual_seed(0)
    model = WaveNet(spec, **{"width": 12, "depth": 3, "stacks": 2, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
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


# -- signals -----------------------------------------------------------------------------------------------------------

SERIES = Spec("series", (20, 3), columns=("a", "b", "c"))
AUDIO = Spec("audio", (40,), (-1.0, 1.0), classes=("low", "high"), sample_rate=100)


def test_a_number_of_a_series_is_told_by_those_before_it_alone():
    """By gradient: of earlier steps as far as it reaches, and of the earlier numbers of its own step."""
    model = model_of(SERIES).double()
    x = torch.randn(1, 20, 3, dtype=torch.float64, requires_grad=True)
    nll = model.nll(Batch({"series": x}, BatchRandom(0, stop=1)))[0]  # (T, C)
    reach = 2 * (2**3 - 1) + 1
    for t, d in itertools.product((0, 3, 19), range(3)):
        (gradient,) = torch.autograd.grad(nll[t, d], x, retain_graph=True)
        seen = gradient[0] != 0  # (T, C)
        first = max(0, t - reach)
        assert seen[first:t].all() and not seen[:first].any() and not seen[t + 1 :].any()
        assert seen[t, : d + 1].all() and not seen[t, d + 1 :].any()


def test_the_density_of_a_step_is_one_in_all():
    """Of two numbers after one given step, summed over a fine grid."""
    spec = Spec("series", (2, 2), columns=("a", "b"))
    torch.manual_seed(0)
    model = WaveNet(spec, width=12, depth=2, stacks=1, num_components=3).eval()
    model.head[-1].out.data.mul_(0.3)  # no component is narrower than the grid
    grid = torch.linspace(-30, 30, 601)
    second = torch.cartesian_prod(grid, grid)  # (N, 2)
    series = torch.stack([torch.tensor([0.3, -0.5]).expand_as(second), second], 1)
    with torch.no_grad():
        nll = model.nll(Batch({"series": series}, BatchRandom(0, stop=len(series))))[:, 1].sum(1)
    assert (-nll.double()).exp().sum().item() * 0.1**2 == pytest.approx(1, abs=0.01)


def test_probabilities_of_all_sounds_sum_to_one():
    """Of 256 levels of a third sample after two given ones."""
    model = model_of(Spec("audio", (3,), (-1.0, 1.0), sample_rate=100))
    levels = mu_law.decode(torch.arange(256))
    audio = torch.stack([torch.full((256,), 0.2), torch.full((256,), -0.4), levels], 1)
    nll = model.nll(Batch({"audio": audio}, BatchRandom(0, stop=256)))[:, 2].double()
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("spec", [SERIES, AUDIO], ids=["series", "audio"])
def test_signals_drawn_with_queues_are_those_of_whole_passes(spec):
    """Place by place from the same noise, by the network that is trained; twice as long as a window, with classes."""
    options = {"conditional": True} if spec.classes else {}
    model = model_of(spec, std=0.2, **options)
    drawn = model.sample(SampleRandom(5, range(4)), length=80)
    label = torch.arange(4) % 2 if options else None
    is_audio = spec.modality == "audio"
    noise = SampleRandom(5, range(4)).uniform(80, *((1,) if is_audio else (3, 2)))
    inputs = mu_law.encode(drawn) if is_audio else drawn
    with torch.no_grad():
        late = torch.nn.functional.pad(model._embed(inputs), (0, 0, 1, -1))
        features = model._read(late, label)
        for t in range(80):
            if is_audio:
                again = mu_law.decode(inverse_cdf(model.head(features[:, t]), noise[:, t]))
            else:
                before = drawn[:, t - 1] if t else None
                again = model.head[-1].draw(model.head[:-1](features[:, t]), before, noise[:, t])
            torch.testing.assert_close(again, drawn[:, t], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("spec", [SERIES, AUDIO], ids=["series", "audio"])
def test_a_signal_goes_on_from_what_is_given_as_from_what_was_drawn(spec):
    """What is given stays, to the bit, and what follows is what a whole pass over both draws from the same noise."""
    model = model_of(spec, std=0.2)
    shape = (2, 11, *spec.shape[1:])
    given = torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1
    is_audio = spec.modality == "audio"
    given = mu_law.decode(mu_law.encode(given)) if is_audio else given
    drawn = model.sample(SampleRandom(5, range(4)), given=given, length=30)
    assert drawn.shape == (4, 41, *spec.shape[1:])
    assert torch.equal(drawn[:, :11], given[[0, 1, 0, 1]])
    noise = SampleRandom(5, range(4)).uniform(30, *((1,) if is_audio else (3, 2)))
    with torch.no_grad():
        inputs = model._embed(mu_law.encode(drawn) if is_audio else drawn)
        features = model._read(torch.nn.functional.pad(inputs, (0, 0, 1, -1)), None)
        for t in range(11, 41):
            if is_audio:
                again = mu_law.decode(inverse_cdf(model.head(features[:, t]), noise[:, t - 11]))
            else:
                again = model.head[-1].draw(model.head[:-1](features[:, t]), drawn[:, t - 1], noise[:, t - 11])
            torch.testing.assert_close(again, drawn[:, t], atol=2e-4, rtol=1e-3)


def test_what_follows_is_of_the_seed_the_number_and_what_is_given_alone():
    model, given = model_of(SERIES, std=0.2), torch.randn(3, 7, 3)
    whole = model.sample(SampleRandom(1, range(6)), given=given, length=9)
    part = model.sample(SampleRandom(1, range(4, 6)), given=given, length=9)
    torch.testing.assert_close(part, whole[4:], atol=1e-5, rtol=1e-4)
    assert not torch.equal(whole[0], whole[3])  # of one series, but of another number


def test_what_of_a_given_signal_stays_is_its_end_or_its_first_half():
    model, given = model_of(SERIES, std=0.2), torch.randn(1, 10, 3)
    random = lambda: SampleRandom(0, range(2))  # noqa: E731 - a fresh one each time
    assert model.sample(random(), given=given).shape == (2, 10 + 20, 3)  # by default a window follows
    ended = model.sample(random(), given=given, keep=4, length=5)
    assert torch.equal(ended[0, :4], given[0, 6:]) and ended.shape == (2, 9, 3)
    half = model.sample(random(), given=given, keep="first_half")
    assert torch.equal(half[1, :5], given[0, :5]) and half.shape == (2, 10, 3)


def test_a_given_sound_stays_as_the_levels_that_it_is_read_in():
    given = torch.linspace(-1, 1, 30).unsqueeze(0)
    drawn = model_of(AUDIO).sample(SampleRandom(0, range(2)), given=given, length=3)[:, :30]
    assert torch.equal(drawn[0], mu_law.decode(mu_law.encode(given[0])))
    assert (drawn[0] - given[0]).abs().max() < 0.025  # half a step of the loudest levels


def test_what_cannot_be_gone_on_from_is_refused():
    random, gap = SampleRandom(0, range(2)), torch.tensor([0.0, torch.nan, 1.0]).view(1, 3, 1).expand(1, 3, 3)
    with pytest.raises(ValueError, match=r"has gaps.*flow_matching"):
        model_of(SERIES).sample(random, given=gap)
    with pytest.raises(ValueError, match="keep=4 is more than the 3 steps"):
        model_of(SERIES).sample(random, given=torch.zeros(1, 3, 3), keep=4)
    with pytest.raises(ValueError, match="text goes on from a prompt"):
        model_of(TEXT).sample(random, given=torch.zeros(1, 3, 3))


def test_a_cold_series_is_the_likeliest_and_a_cold_sound_draws_nothing():
    for spec in (SERIES, AUDIO):
        model = model_of(spec)
        first, second = (model.sample(SampleRandom(seed, range(2)), temperature=0.0) for seed in (0, 1))
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-3)


def test_sounds_of_a_class_are_drawn_and_scored_with_it():
    model = model_of(AUDIO, conditional=True)
    one = model.sample(SampleRandom(0, range(2)), label=1)
    in_turn = model.sample(SampleRandom(0, range(2)))
    assert torch.equal(one[1], in_turn[1]) and not torch.equal(one[0], in_turn[0])
    batch = {"audio": one, "label": torch.tensor([1, 1])}
    as_other = {**batch, "label": torch.tensor([0, 0])}
    nll = [model.evaluate(Batch(rows, BatchRandom(0, stop=2)))["nll"] for rows in (batch, as_other)]
    assert not torch.equal(*nll)
    with pytest.raises(ValueError, match="conditional=true"):
        model_of(AUDIO).sample(SampleRandom(0, range(2)), label=1)
    with pytest.raises(ValueError, match="labels"):
        WaveNet(SERIES, conditional=True)


def test_a_mixture_is_refused_where_nothing_is_told_by_one():
    with pytest.raises(ValueError, match="num_components=3 is of series, and these are audio"):
        WaveNet(AUDIO, num_components=3)


def test_options_of_tokens_are_refused_for_signals():
    with pytest.raises(ValueError, match="top_k, prompt: of tokens alone"):
        model_of(AUDIO).sample(SampleRandom(0, range(2)), top_k=3, prompt="a")


def test_the_density_is_per_unit_of_the_data_whatever_they_are_measured_in():
    """Series in units a thousand times smaller, from the first step of training on, have D log 1000 nats more."""
    figures = []
    for factor in (1.0, 1000.0):
        model = model_of(SERIES, std=0.2).train()
        model.embedding.weight.data.div_(factor)
        x = factor * torch.randn(8, 20, 3, generator=torch.Generator().manual_seed(1))
        batch = Batch({"series": x}, BatchRandom(0, stop=8))
        model.loss(batch)
        figures.append(model.eval().evaluate(batch)["nll"])
    torch.testing.assert_close(figures[1] - figures[0], torch.full((8,), 60 * 6.907755), atol=2e-2, rtol=0)
