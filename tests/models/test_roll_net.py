"""What is special to the network over piano rolls: exact likelihoods, causality, and sampling with a memory."""

import itertools

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.roll_net import RollNet
from genai_cli.nn.nade import NADE
from genai_cli.nn.random import BatchRandom, SampleRandom

OUTPUTS = pytest.mark.parametrize("output", ["bernoulli", "nade"])
KINDS = pytest.mark.parametrize(("reader", "attention"), [("tcn", 0), ("lstm", 0), ("gru", 2)])


def tiny_model(frames: int = 6, keys: int = 88, **options) -> RollNet:
    torch.manual_seed(0)
    model = RollNet(Spec("rolls", (frames, keys), (0.0, 1.0), levels=2), **{**RollNet.tiny, **options}).eval().double()
    with torch.no_grad():
        model.head.bias.zero_()
        model.head.weight.mul_(5)
    return model


@OUTPUTS
def test_probabilities_of_all_rolls_sum_to_one(output: str) -> None:
    model = tiny_model(2, 4, output=output)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)), dtype=torch.float64).view(-1, 2, 4)
    assert (-model.nll(every).sum(1)).exp().sum().item() == pytest.approx(1)


@KINDS
def test_a_frame_is_predicted_from_those_before_it_alone(reader: str, attention: int) -> None:
    model = tiny_model(reader=reader, attention=attention, depth=1, kernel=2)
    roll = (torch.rand(1, 6, 88, dtype=torch.float64) > 0.9).double().requires_grad_()
    past = torch.nn.functional.pad(roll, (0, 0, 1, -1))
    logits = model.head(model.features(past))
    for t in range(6):
        (gradient,) = torch.autograd.grad(logits[0, t].sum(), roll, retain_graph=True)
        reach = gradient[0].abs().sum(1) > 0
        assert not reach[t:].any()
        furthest = 0 if model.transformer is not None or reader != "tcn" else max(0, t - 1 - model.reader.reach)
        assert reach[furthest:t].all() and not reach[:furthest].any()


def test_nade_knows_the_notes_below_alone() -> None:
    nade = NADE(5, 3, condition_dim=2).double()
    x = torch.rand(1, 5, dtype=torch.float64, requires_grad=True)
    logits = nade(torch.randn(1, 2, dtype=torch.float64), x)
    reach = torch.stack([torch.autograd.grad(logit, x, retain_graph=True)[0][0] != 0 for logit in logits[0]])
    assert torch.equal(reach, torch.ones(5, 5, dtype=torch.bool).tril(-1))


@OUTPUTS
@KINDS
def test_sampling_with_a_memory_equals_whole_passes(reader: str, attention: int, output: str) -> None:
    model = tiny_model(reader=reader, attention=attention, output=output, depth=1, kernel=2)
    prompt = (torch.rand(2, 88, dtype=torch.float64) > 0.9).double()[[0, 1, 0]]  # one is recalled
    frames = model.sample(SampleRandom(1, range(3)), prompt=prompt, length=3, temperature=0.7)
    random, roll = SampleRandom(1, range(3)), torch.zeros(3, 6, 88, dtype=torch.float64)
    roll[:, :3] = prompt
    for t in range(3, 6):
        past = torch.nn.functional.pad(roll, (0, 0, 1, -1))
        features = model.features(past)
        logits, threshold = model.logits(features, past), random.uniform(88)
        for key in range(88):  # note after note, as the likelihood factorises
            own = logits[:, t, key]
            if model.nade is not None:
                own = own + model.nade(features[:, t], roll[:, t])[:, key]
            roll[:, t, key] = (threshold[:, key] < (own / 0.7).sigmoid()).double()
    assert torch.equal(frames, roll)


def test_figures_are_exact_per_frame_with_and_without_the_first() -> None:
    model = tiny_model()
    roll = (torch.rand(2, 6, 88, dtype=torch.float64) > 0.9).double()
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    batch = Batch({"roll": roll, "mask": mask}, BatchRandom(0, stop=2))
    nll = model.nll(roll) * mask
    for first_frame, start, weight in ((True, 0, [6.0, 3.0]), (False, 1, [5.0, 2.0])):
        figures = model.evaluate(batch, first_frame=first_frame)
        assert figures["weight"].tolist() == weight
        torch.testing.assert_close(figures["nll"] * figures["weight"], nll[:, start:].sum(1))
    loss, _ = model.loss(batch)
    torch.testing.assert_close(loss, nll.sum() / 9)


def test_more_frames_than_attention_spans_are_refused() -> None:
    with pytest.raises(ValueError, match="length=7 are more than 6"):
        tiny_model().sample(SampleRandom(0, [0]), length=7)
    assert tiny_model(attention=0).sample(SampleRandom(0, [0]), length=7).shape == (1, 7, 88)


def test_the_default_has_at_most_300_000_parameters() -> None:
    model = RollNet(Spec("rolls", (160, 88), (0.0, 1.0), levels=2), recall=8)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 300_000
