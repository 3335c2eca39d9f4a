"""Sequences from a model of masked tokens: hidden places are filled in a few at a time (Wang & Cho 2019)."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.nn.random import RowRandom, inverse_cdf
from genai_cli.samplers.chains import Chain
from genai_cli.samplers.decoding import filter_logits, greedy

Order = Literal["random", "confidence"]
UNWANTED = 100.0  # nats by which what `top_k` leaves out is less likely, where a chain may need it


def unmask(
    predict: Callable[[Tensor], Tensor], tokens: Tensor, random: RowRandom, *, mask_token: int, steps: int,
    order: Order = "random", temperature: float = 1.0, top_k: int | None = None, chain: Chain | None = None,
    start: int = 0,
) -> Tensor:  # fmt: skip
    """Fill the places of `tokens` (B, T) that hold `mask_token`, the same number in each row, in `steps` steps.

    `predict(tokens)` gives logits (B, T, V) for every place. In each step about as many places are filled as in any
    other: at random, or those of whose tokens the model is surest (Chang et al. 2022, MaskGIT). With a `chain`, the
    sequence keeps it, as if after the token `start`.
    """
    num_hidden = int((tokens[0] == mask_token).sum())
    steps = min(steps, num_hidden)
    before = torch.full_like(tokens[:, 0], start)
    filled = 0
    for step in range(steps):
        target = math.ceil(num_hidden * (step + 1) / steps)
        is_hidden = tokens == mask_token
        logits = predict(tokens)
        if chain is not None:
            logits = pin(logits, tokens, is_hidden)
        drawn, confidence = draw_places(
            logits, random, temperature=temperature, top_k=top_k, chain=chain, before=before
        )
        priority = random.uniform(tokens.shape[1]) if order == "random" else confidence
        priority = priority.double().masked_fill(~is_hidden, -math.inf)
        chosen = priority.topk(target - filled, dim=1).indices  # (B, target - filled)
        tokens = tokens.scatter(1, chosen, drawn.gather(1, chosen))
        filled = target
    return tokens


def pin(logits: Tensor, tokens: Tensor, is_hidden: Tensor) -> Tensor:
    """(B, T, V), where only what `tokens` (B, T) hold is possible at places that are not hidden."""
    known = torch.full_like(logits, -torch.inf)
    known.scatter_(2, tokens.masked_fill(is_hidden, 0)[..., None], 0.0)
    return torch.where(is_hidden[..., None], logits, known)


def draw_places(
    logits: Tensor, random: RowRandom, *, temperature: float = 1.0, top_k: int | None = None,
    chain: Chain | None = None, before: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(B, T, V) -> tokens (B, T), one drawn for each place, and their probabilities (B, T).

    Each by itself, or with a `chain` so that they fit each other and the token `before` (B,) them. What `top_k` leaves
    out is then drawn only where nothing else fits.
    """
    flat = filter_logits(logits.flatten(0, 1), temperature=temperature, top_k=top_k)  # (B T, V)
    kept = flat.view_as(logits)
    if chain is not None and before is not None:
        if top_k is not None:
            kept = torch.where(kept.isneginf(), logits / temperature - UNWANTED, kept)
        drawn = chain.draw(kept, before, random.uniform(logits.shape[1]))
    elif top_k == 1:
        drawn = greedy(flat).view(logits.shape[:2])
    else:
        threshold = random.uniform(logits.shape[1]).view(-1, 1)
        drawn = inverse_cdf(flat, threshold).view(logits.shape[:2])
    confidence = kept.double().softmax(-1).gather(2, drawn[..., None]).squeeze(2)
    return drawn, confidence


class NextPlace:
    """Next-token logits of a model of hidden tokens, to which all that is still to come is hidden.

    A `Predictor` of `samplers.generation`: with it, such a model draws from left to right, one of its orders.
    """

    def __init__(self, predict: Callable[[Tensor], Tensor], *, places: int, mask_token: int):
        """`predict(tokens)`: (B, places) -> (B, places, V)."""
        self.predict, self.places, self.mask_token = predict, places, mask_token

    def __call__(self, tokens: Tensor) -> Tensor:
        now = tokens.shape[1]
        return self.predict(F.pad(tokens, (0, self.places - now), value=self.mask_token))[:, now]

    def select(self, rows: Tensor) -> None:
        """Nothing is remembered of the rows."""
