"""Sequences from a model of masked tokens: hidden places are filled in a few at a time (Wang & Cho 2019)."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom
from genai_cli.samplers.decoding import filter_logits, greedy

Order = Literal["random", "confidence"]


def unmask(
    predict: Callable[[Tensor], Tensor], tokens: Tensor, random: RowRandom, *, mask_token: int, steps: int,
    order: Order = "random", temperature: float = 1.0, top_k: int | None = None,
) -> Tensor:  # fmt: skip
    """Fill the places of `tokens` (B, T) that hold `mask_token`, the same number in each row, in `steps` steps.

    `predict(tokens)` gives logits (B, T, V) for every place. In each step about as many places are filled as in any
    other: at random, or those of whose tokens the model is surest (Chang et al. 2022, MaskGIT).
    """
    num_hidden = int((tokens[0] == mask_token).sum())
    steps = min(steps, num_hidden)
    filled = 0
    for step in range(steps):
        target = math.ceil(num_hidden * (step + 1) / steps)
        is_hidden = tokens == mask_token
        drawn, confidence = draw_places(predict(tokens), random, temperature=temperature, top_k=top_k)
        priority = random.uniform(tokens.shape[1]) if order == "random" else confidence
        priority = priority.double().masked_fill(~is_hidden, -math.inf)
        chosen = priority.topk(target - filled, dim=1).indices  # (B, target - filled)
        tokens = tokens.scatter(1, chosen, drawn.gather(1, chosen))
        filled = target
    return tokens


def draw_places(logits: Tensor, random: RowRandom, *, temperature: float, top_k: int | None) -> tuple[Tensor, Tensor]:
    """(B, T, V) -> tokens (B, T), one drawn for each place, and their probabilities (B, T)."""
    flat = filter_logits(logits.flatten(0, 1), temperature=temperature, top_k=top_k)  # (B T, V)
    probabilities = flat.double().softmax(-1)
    if top_k == 1:
        drawn = greedy(flat)
    else:
        cumulative = probabilities.cumsum(-1)
        threshold = random.uniform(logits.shape[1]).double().view(-1, 1) * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp_(max=flat.shape[-1] - 1)
    confidence = probabilities.gather(1, drawn[:, None]).squeeze(1)
    return drawn.view(logits.shape[:2]), confidence.view(logits.shape[:2])
