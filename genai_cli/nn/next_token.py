"""The objective of every model of the next token: cross-entropy of the targets that the mask leaves in."""

import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Batch

IGNORED = -100  # target that `cross_entropy` leaves out


def masked_targets(batch: Batch) -> Tensor:
    """(B, T) int64: the token after each input token, IGNORED where it does not count."""
    return batch["tokens"][:, 1:].masked_fill(~batch["mask"], IGNORED)


def without_padding(batch: Batch) -> Batch:
    """The batch without the places after the last target that counts in any row, which a causal model need not read.

    Not on a GPU, which would have to be waited for to know that place.
    """
    mask = batch["mask"]
    if mask.is_cuda or bool(mask[:, -1].any()):
        return batch
    longest = int(mask.any(0).nonzero()[-1]) + 1
    rows = {**batch, "tokens": batch["tokens"][:, : longest + 1], "mask": mask[:, :longest]}
    return Batch(rows, batch.random, batch.shared)


def next_token_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Nats per token, a mean over the targets that count. `logits` (B, T, V)."""
    return F.cross_entropy(logits.float().flatten(0, 1), masked_targets(batch).flatten())


def next_token_figures(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Nats per token of each window, and how many tokens that is the mean of (`weight`): the set's exact figure."""
    nll = F.cross_entropy(logits.float().transpose(1, 2), masked_targets(batch), reduction="none")  # (B, T)
    weight = batch["mask"].sum(1)
    return {"nll": nll.sum(1) / weight.clamp(min=1), "weight": weight.to(nll.dtype)}


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """(B, T, C) over the places that `mask` (B, T) leaves in, (B, C)."""
    weight = mask.to(features.dtype)[..., None]
    return (features * weight).sum(1) / weight.sum(1).clamp(min=1)
