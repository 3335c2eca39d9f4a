"""What is measured and drawn from a model: figures, samples, the moving average, and the random numbers behind them."""

import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch
from genai_cli.engine.ema import MovingAverage
from genai_cli.engine.figures import held_out_figures
from genai_cli.engine.sampling import draw
from genai_cli.engine.sharding import lent
from genai_cli.models.base import Metrics
from genai_cli.nn.random import BatchRandom, RowRandom, SampleRandom, _permute32, mix
from tests.engine.duel import CPU, SPEC, Duel, points

# -- figures and samples ----------------------------------------------------------------------------------------------


class Judge(Duel):
    """Figures that are known, with and without weights."""

    def evaluate(self, batch: Batch) -> Metrics:
        x = batch["points"][:, 0]
        return {"x": x, "noisy": x + batch.random.normal(), "weight": torch.where(x > 0, 3.0, 1.0)}


def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(SPEC)


def test_a_figure_is_the_weighted_mean_with_its_standard_error() -> None:
    split = points(50, 3)
    x = split.tensors["points"][:, 0].double()
    weight = torch.where(x > 0, 3.0, 1.0).double()
    figure = held_out_figures(judge(), split, seed=0, batch_size=7, device=CPU)["x"]
    mean = (weight * x).sum() / weight.sum()
    error = ((weight * (x - mean)).square().sum()).sqrt() / weight.sum()
    assert (figure.mean, figure.standard_error) == pytest.approx((mean.item(), error.item()), rel=1e-9)
    assert figure.count == 50


def test_an_unweighted_standard_error_is_the_textbook_one() -> None:
    class Plain(Judge):
        def evaluate(self, batch: Batch) -> Metrics:
            return {"x": batch["points"][:, 0]}

    split = points(50, 3)
    x = split.tensors["points"][:, 0].double()
    figure = held_out_figures(Plain(SPEC), split, seed=0, batch_size=50, device=CPU)["x"]
    assert figure.mean == pytest.approx(x.mean().item())
    assert figure.standard_error == pytest.approx(x.std(correction=0).item() / math.sqrt(50))


@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_a_figure_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    figures = [
        held_out_figures(judge(), points(50, 3), seed=4, batch_size=size, device=CPU) for size in (10, batch_size)
    ]
    assert figures[0]["noisy"].mean == pytest.approx(figures[1]["noisy"].mean, abs=1e-12)
    assert (
        figures[0]["noisy"].mean
        != held_out_figures(judge(), points(50, 3), seed=5, batch_size=10, device=CPU)["noisy"].mean
    )


def test_a_limit_takes_the_first_examples() -> None:
    few = held_out_figures(judge(), points(50, 3), seed=0, batch_size=4, device=CPU, limit=6)["x"]
    assert few.count == 6


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_samples_do_not_depend_on_the_batch_size_or_their_number(batch_size: int) -> None:
    model = judge()
    samples = draw(model, 10, seed=1, batch_size=batch_size, device=CPU)
    torch.testing.assert_close(samples, draw(model, 20, seed=1, batch_size=20, device=CPU)[:10], atol=1e-6, rtol=0)
    assert not torch.allclose(samples, draw(model, 10, seed=2, batch_size=10, device=CPU))


def test_drawing_leaves_the_model_as_it_was() -> None:
    model = judge().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draw(model, 4, seed=1, batch_size=4, device=CPU)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# -- the moving average -----------------------------------------------------------------------------------------------


def test_the_average_follows_its_recurrence() -> None:
    layer = nn.Linear(1, 1, bias=False).double()
    average = MovingAverage(layer, layer.parameters(), decay=0.5)
    expected = layer.weight.item()
    for step in range(1, 12):
        with torch.no_grad():
            layer.weight.fill_(step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.state()["weight"].item() == pytest.approx(expected, rel=1e-12)


def test_raw_weights_are_back_after_an_exception() -> None:
    layer = nn.Linear(2, 2)
    average = MovingAverage(layer, [layer.weight], decay=0.9)
    with torch.no_grad():
        layer.weight.add_(1)
    raw = layer.weight.detach().clone()
    with pytest.raises(KeyError), lent(layer, average.state()):
        assert torch.equal(layer.weight, average.state()["weight"]) and not torch.equal(layer.weight, raw)
        raise KeyError
    assert torch.equal(layer.weight, raw)
    assert set(average.state()) == {"weight"}


def test_the_optimizer_still_moves_the_weights_after_the_average_was_applied() -> None:
    layer = nn.Linear(2, 2)
    average = MovingAverage(layer, layer.parameters(), decay=0.9)
    with lent(layer, average.state()):
        pass
    before = average.state()["weight"].clone()
    layer.weight.grad = torch.ones_like(layer.weight)
    torch.optim.SGD(layer.parameters(), lr=1.0).step()
    assert torch.equal(average.state()["weight"], before)
    torch.testing.assert_close(layer.weight.detach(), before - 1)


# -- random numbers ---------------------------------------------------------------------------------------------------


def calls(random: RowRandom) -> list[Tensor]:
    return [random.normal(3), random.uniform(), random.integers(7, 2), random.categorical(torch.zeros(random.size, 5))]


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (0, 5), (5, 12), (11, 12)])
def test_rows_of_a_batch_are_slices_of_the_whole(start: int, stop: int) -> None:
    whole = calls(BatchRandom(1, 2, stop=12))
    part = calls(BatchRandom(1, 2, start=start, stop=stop, total=12))
    assert all(torch.equal(rows, all_rows[start:stop]) for rows, all_rows in zip(part, whole, strict=True))


def test_every_call_and_every_key_has_numbers_of_its_own() -> None:
    random = BatchRandom(1, 2, stop=4)
    draws = [
        random.uniform(),
        random.uniform(),
        BatchRandom(2, 1, stop=4).uniform(),
        BatchRandom(1, 2, 0, stop=4).uniform(),
    ]
    assert len({tuple(numbers.tolist()) for numbers in draws}) == 4


def test_a_sample_is_a_function_of_the_seed_and_its_index() -> None:
    together = calls(SampleRandom(9, range(6)))
    apart = [
        torch.cat(rows)
        for rows in zip(calls(SampleRandom(9, [0, 1])), calls(SampleRandom(9, [2, 3, 4, 5])), strict=True)
    ]
    assert all(torch.equal(rows, others) for rows, others in zip(together, apart, strict=True))
    assert torch.equal(SampleRandom(9, [4]).normal(3), together[0][4:5])


def test_the_map_from_samples_to_streams_is_a_bijection() -> None:
    """Each of its three steps can be undone: a multiplication by an odd number, and shifts folded into themselves."""

    def unfold(number: int, shift: int) -> int:
        result = number
        for _ in range(32 // shift):
            result = number ^ (result >> shift)
        return result

    for number in (0, 1, 2, 12345, 2**31, 2**32 - 1, *range(10**6, 10**6 + 1000)):
        hashed = _permute32(number)
        undone = unfold(hashed, 16) * pow(0xC2B2AE35, -1, 2**32) % 2**32
        undone = unfold(undone, 13) * pow(0x85EBCA6B, -1, 2**32) % 2**32
        assert unfold(undone, 16) == number


def test_no_two_keys_of_many_collide() -> None:
    keys = [(seed, tag, step) for seed in range(20) for tag in range(5) for step in range(200)]
    assert len({mix(*key) for key in keys}) == len(keys)


def test_uniform_numbers_are_uniform_and_normal_ones_normal() -> None:
    from scipy import stats

    for random in (BatchRandom(3, stop=4000), SampleRandom(3, range(4000))):
        assert stats.kstest(random.uniform().numpy(), "uniform").pvalue > 1e-3
        assert stats.kstest(random.normal().numpy(), "norm").pvalue > 1e-3


def test_categorical_draws_follow_the_softmax() -> None:
    from scipy import stats

    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -1.0])
    count = 20_000
    drawn = BatchRandom(5, stop=count).categorical(logits.expand(count, 5))
    counts = torch.bincount(drawn, minlength=5)
    assert counts[2] == 0
    possible = [0, 1, 3, 4]
    expected = logits.double().softmax(0)[possible] * count
    assert stats.chisquare(counts[possible].numpy(), expected.numpy()).pvalue > 1e-3


def test_integers_are_below_their_limit() -> None:
    drawn = BatchRandom(6, stop=5000).integers(3)
    assert drawn.unique().tolist() == [0, 1, 2]
