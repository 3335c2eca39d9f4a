"""Span corruption, the objective that T5 is trained with (Raffel et al. 2020, sections 3.1.4 and 3.3.4).

    text    Thank you for inviting me to your party last week
    input   Thank you <0> me to your party <1> week
    target  <0> for inviting <1> last <2>

<0>, <1>, ... are sentinels, tokens that no text has. Input and target follow each other in one row, cut between them.
"""

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom


class SpanCorruption:
    """Of rows of `length` tokens, spans of mean length `mean_span` are hidden, a share `rate` of all tokens.

    As many tokens and spans in each row, so that all corrupted rows are of one length. How the hidden tokens fall into
    spans, and how the others fall between them: all ways are alike.
    """

    def __init__(self, length: int, *, rate: float, mean_span: float, sentinel: int):
        """`sentinel`: the token of the first of them; the others follow it."""
        self.length, self.sentinel = length, sentinel
        self.num_hidden = min(max(round(rate * length), 1), length - 1)
        most = min(self.num_hidden, length - self.num_hidden + 1)
        self.num_spans = min(max(round(self.num_hidden / mean_span), 1), most)
        self.input_length = length - self.num_hidden + self.num_spans
        self.row_length = length + 2 * self.num_spans + 1
        self.num_sentinels = self.num_spans + 1  # the last one closes the target

    def draw(self, random: RowRandom) -> tuple[Tensor, Tensor]:
        """Where the spans of each row begin and how long they are, (B, S) each. Between two there is a token."""
        sizes = composition(random, self.num_hidden, self.num_spans)
        gaps = composition(random, self.length - self.num_hidden + 2, self.num_spans + 1)  # of the outer ones, one less
        starts = gaps.cumsum(1)[:, :-1] - 1 + sizes.cumsum(1) - sizes
        return starts, sizes

    def rows(self, tokens: Tensor, starts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """(B, length) tokens to input and target, (B, row_length); and where each token went, (B, length)."""
        place = torch.arange(self.length, device=tokens.device).expand_as(tokens).contiguous()
        hidden_before = sizes.cumsum(1) - sizes  # (B, S)
        span = torch.searchsorted(starts.contiguous(), place, right=True) - 1  # the last that has begun; -1: none
        inside = place - starts.gather(1, span.clamp(min=0))
        before, size = (each.gather(1, span.clamp(min=0)) for each in (hidden_before, sizes))
        is_hidden = (span >= 0) & (inside < size)
        kept_to = torch.where(span < 0, place, place - before - size + span + 1)
        went_to = torch.where(is_hidden, self.input_length + before + inside + span + 1, kept_to)

        number = torch.arange(self.num_spans, device=tokens.device)
        last = self.sentinel + self.num_spans  # at the end of the row
        rows = tokens.new_full((len(tokens), self.row_length), last)
        rows.scatter_(1, went_to, tokens)
        sentinels = (self.sentinel + number).expand_as(starts)
        rows.scatter_(1, starts - hidden_before + number, sentinels)
        rows.scatter_(1, self.input_length + hidden_before + number, sentinels)
        return rows, went_to


def composition(random: RowRandom, total: int, parts: int) -> Tensor:
    """(B, parts) int64, each at least 1 and together `total`, all ways alike."""
    cuts = random.uniform(total - 1).topk(parts - 1, dim=1).indices.sort(dim=1).values + 1  # (B, parts - 1)
    ends = torch.nn.functional.pad(cuts, (0, 1), value=total)
    return ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))
