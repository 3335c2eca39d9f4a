"""Drawing the next token from a language model's logits: temperature, top-k, top-p (nucleus), min-p, greedy.

Each function maps logits (B, V) to logits (B, V), with -inf for the tokens that may not be drawn, so they compose.
"""

import math

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Only the `k` likeliest tokens of each row (Fan et al. 2018); more where several tie for the last place."""
    if k >= logits.shape[-1]:
        return logits
    smallest_kept = logits.topk(k, -1).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Only the smallest set of likeliest tokens whose probabilities add up to `p` (Holtzman et al. 2020).

    A token is kept if those likelier than it hold less than `p`: the likeliest always is, at p = 0 alone.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)  # (B, V)
    probabilities = ordered.double().softmax(-1)
    likelier = probabilities.cumsum(-1) - probabilities
    dropped = likelier >= p
    dropped[:, 0] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Only tokens at least `p` times as likely as the likeliest (Nguyen et al. 2024, min-p): all of them at p = 0."""
    log_p = logits.double().log_softmax(-1)
    threshold = log_p.max(-1, keepdim=True).values + (math.log(p) if p > 0 else -math.inf)  # (B, 1)
    return logits.masked_fill(log_p < threshold, -torch.inf)


def penalise_repetition(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Make the tokens (B, T) that have been seen less likely (Keskar et al. 2019, CTRL, section 4.1).

    Positive logits are divided by `penalty`, negative ones multiplied by it; negative tokens stand for none.
    """
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, tokens.clamp(min=0), tokens >= 0)
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def filter_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Temperature, then top-k, then top-p of what is left, then min-p: the order in which most programs apply them."""
    if temperature != 1.0:
        logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None and top_p < 1.0:
        logits = keep_top_p(logits, top_p)
    if min_p is not None:
        logits = keep_min_p(logits, min_p)
    return logits


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row, (B,) int64; the first of equals."""
    return logits.argmax(-1)


def draw_tokens(
    logits: Tensor,
    random: RowRandom,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """(B,) int64: one token of each row, drawn from what `filter_logits` leaves. Without choice, `greedy`."""
    if temperature == 0 or top_k == 1 or top_p == 0.0 or min_p == 1.0:
        return greedy(logits)
    return random.categorical(filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p))
