"""Span corruption: its statistics, and that input and target hold the text, whole and once."""

import pytest
import torch

from genai_cli.nn.random import BatchRandom
from genai_cli.nn.spans import SpanCorruption, composition

LENGTH, SENTINEL = 100, 1000


def corrupted(count: int = 500, **options) -> tuple[SpanCorruption, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows whose tokens are their places, and where spans lie in them."""
    spans = SpanCorruption(LENGTH, **{"rate": 0.15, "mean_span": 3.0, "sentinel": SENTINEL, **options})
    starts, sizes = spans.draw(BatchRandom(0, stop=count))
    rows, _ = spans.rows(torch.arange(LENGTH).repeat(count, 1), starts, sizes)
    return spans, rows, starts, sizes


def reassembled(row: list[int], cut: int) -> list[int]:
    """The text of an input and its target, by the words of the paper alone."""
    gaps: dict[int, list[int]] = {}
    for token in row[cut:]:
        if token >= SENTINEL:
            gaps[token] = []
        else:
            gaps[max(gaps)].append(token)
    return [token for at in row[:cut] for token in (gaps[at] if at >= SENTINEL else [at])]


@pytest.mark.parametrize(("rate", "mean_span"), [(0.15, 3.0), (0.5, 1.0), (0.15, 30.0), (0.01, 3.0), (0.9, 9.0)])
def test_input_and_target_reassemble_the_text(rate: float, mean_span: float) -> None:
    spans, rows, *_ = corrupted(100, rate=rate, mean_span=mean_span)
    assert rows.shape == (100, spans.row_length)
    for row in rows.tolist():
        assert reassembled(row, spans.input_length) == list(range(LENGTH))
        sentinels = [token for token in row if token >= SENTINEL]
        named = list(range(SENTINEL, SENTINEL + spans.num_spans))
        assert sentinels == [*named, *named, SENTINEL + spans.num_spans]  # in order, and the last closes


def test_15_percent_are_hidden_in_spans_of_3() -> None:
    _, _, starts, sizes = corrupted(4000)
    assert (sizes.sum(1) == 15).all() and sizes.shape == (4000, 5) and sizes.min() == 1
    assert sizes.double().mean() == 3
    assert (starts[:, 1:] > starts[:, :-1] + sizes[:, :-1]).all()  # a token stands between any two
    assert starts.min() == 0 and (starts + sizes).max() == LENGTH
    places = starts[:, :, None] + torch.arange(15)  # (B, S, 15)
    hidden = torch.bincount(places[torch.arange(15) < sizes[:, :, None]], minlength=LENGTH) / 4000
    assert hidden[5:-5].min() > 0.13 and hidden[5:-5].max() < 0.18  # every place about alike
    assert hidden[[0, -1]].min() > 0.05  # the ends too, with spans on one side of them only


def test_all_compositions_are_alike() -> None:
    parts = composition(BatchRandom(0, stop=20_000), 6, 3)
    assert (parts.sum(1) == 6).all() and parts.min() == 1
    _, counts = parts.unique(dim=0, return_counts=True)
    assert len(counts) == 10 and (counts / 20_000).tolist() == pytest.approx([0.1] * 10, abs=0.01)
    assert composition(BatchRandom(0, stop=2), 6, 1).tolist() == [[6], [6]]
