"""What is measured of samples and of codes, so that `symptoms.py` can judge it: numbers without a threshold.

Each sign of samples is the samples' figure divided by that of as many held-out examples, so that 1 is what data look
like, whatever their kind: continuous examples are compared by Euclidean distance, tokens by the passages they share.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Spec, Split

PASSAGE = 4  # tokens of a passage that a text of its own kind repeats now and then
SIDE = 32  # pixels to which larger images are averaged before they are compared
MOST = 256  # samples that are looked at
COPIED = 16  # tokens of a passage that is a copy where training data hold it
FEWEST = 8  # samples from which anything is said
_CHUNK = 512  # examples read or compared at a time


@dataclass(frozen=True)
class Reference:
    """Examples of both splits that samples are compared with, as rows; the same ones in every process."""

    train: Tensor  # (N, D) float32; of tokens (N, T) int64
    held_out: Tensor  # (M, D), M <= N
    labels: Tensor | None  # (N,) int64 of `train`

    @classmethod
    def of(cls, train: Split, held_out: Split, spec: Spec, *, limit: int | None = None) -> "Reference":
        """At most `limit` evenly spaced examples of each split, equally many where there are enough.

        By default 1024, and 256 where each is a file to read.
        """
        limit = limit or (256 if train.streams else 1024)
        count = min(limit, len(train))
        rows, labels = _evenly_spaced(train, count, spec)
        return cls(rows, _evenly_spaced(held_out, min(count, len(held_out)), spec)[0], labels)


def positions(split: Split, count: int) -> Tensor:
    """(count,) int64: where `count` evenly spaced examples of `split` are."""
    return torch.arange(count) * len(split) // count


def _evenly_spaced(split: Split, count: int, spec: Spec) -> tuple[Tensor, Tensor | None]:
    """`count` examples as rows, and their labels where there are any; read in parts, for pictures may be large."""
    rows, labels = [], []
    for places in positions(split, count).split(_CHUNK):
        examples = split.fetch(places)
        rows.append(as_rows(examples[spec.key], spec))
        labels += [examples["label"].cpu()] if "label" in examples else []
    return torch.cat(rows), torch.cat(labels) if labels else None


def as_rows(examples: Tensor, spec: Spec) -> Tensor:
    """(B, *shape) to (B, D) on the CPU, float32 or, of tokens, int64. What is not finite becomes 0.

    Images are averaged down to 32 pixels a side where they are larger.
    """
    examples = examples.detach().cpu()
    if spec.is_tokens:
        return examples[:, : spec.shape[0]]
    if spec.modality == "rolls":
        examples = examples[:, :SIDE]  # pieces are of different lengths: their beginnings
    if spec.modality == "image":
        examples = F.adaptive_avg_pool2d(examples.float(), [min(side, SIDE) for side in spec.shape[1:]])
    return examples.float().flatten(1).nan_to_num(0.0, 0.0, 0.0)


def sample_signs(samples: Tensor, reference: Reference, spec: Spec) -> dict[str, float]:
    """Signs of `samples` (B, *shape) by name. Empty where there are too few samples or examples to say anything."""
    rows = as_rows(samples[:MOST], spec)
    if spec.is_tokens:
        return _passage_signs(rows, reference)
    if len(rows) < FEWEST or len(reference.held_out) < 2:
        return {}
    return _distance_signs(rows, reference)


def _passage_signs(rows: Tensor, reference: Reference) -> dict[str, float]:
    ours, theirs = distinct_passages(rows), distinct_passages(reference.held_out[: max(len(rows), 2)])
    signs = {"samples/spread": ours / theirs} if theirs > 0 else {}
    length = min(COPIED, rows.shape[1] // 2)
    if length >= COPIED // 2:
        known = passage_hashes(reference.train, length)
        is_copied, is_by_chance = (
            torch.isin(passage_hashes(texts, length), known) for texts in (rows, reference.held_out)
        )
        signs["samples/copied"] = (is_copied.float().mean() - is_by_chance.float().mean()).item()
    return signs


def passage_hashes(tokens: Tensor, length: int) -> Tensor:
    """A 64-bit hash of every passage of `length` tokens in `tokens` (B, T), (B * (T - length + 1),)."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (length,), generator=generator)
    stop = tokens.shape[1] - length + 1
    return sum(tokens[:, i : stop + i] * factor for i, factor in enumerate(factors)).flatten()


def distinct_passages(tokens: Tensor) -> float:
    """Of all passages of 4 tokens in `tokens` (B, T), the share that differ from each other (Li et al. 2016)."""
    passages = tokens.unfold(1, min(PASSAGE, tokens.shape[1]), 1).flatten(0, 1)  # (B * (T - 3), 4)
    return len(passages.unique(dim=0)) / len(passages)


def _distance_signs(rows: Tensor, reference: Reference) -> dict[str, float]:
    real = reference.held_out[: len(rows)]
    spread = mean_distance(real)
    nearest, place = nearest_of(rows, reference.train)  # each (B,)
    real_nearest, real_place = nearest_of(real, reference.train)
    signs = {"samples/modes": effective_number(place) / len(rows) / (effective_number(real_place) / len(real))}
    if spread > 0:
        signs["samples/spread"] = mean_distance(rows) / spread
    if reference.labels is not None:
        classes = effective_number(reference.labels[place])
        signs["samples/classes"] = classes / effective_number(reference.labels[real_place])
    near = real_nearest.median() / 3
    copied = (nearest < near).float().mean() - (real_nearest < near).float().mean()
    return {**signs, "samples/copied": copied.item(), **_closeness(rows, reference)}


def _closeness(rows: Tensor, reference: Reference) -> dict[str, float]:
    """How often a sample is closer to training examples than to as many held-out ones: 1/2 if it is new.

    Samples that share a nearest training example count as one, so that a mode collapse proves nothing here.
    """
    count = len(reference.held_out)
    nearest, place = nearest_of(rows, reference.train[:: len(reference.train) // count][:count])
    held_out, _ = nearest_of(rows, reference.held_out)
    is_closer = (nearest < held_out).float() + 0.5 * (nearest == held_out)
    shares = [is_closer[place == mode].mean() for mode in place.unique()]
    return {"samples/closer_to_training": torch.stack(shares).mean().item(), "samples/distinct_nearest": len(shares)}


def mean_distance(rows: Tensor) -> float:
    """The mean Euclidean distance between two different rows of (B, D)."""
    return torch.pdist(rows).mean().item()


def nearest_of(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """For each of `rows` (B, D), the distance to its nearest in `others` (N, D) and where that is, (B,) each."""
    best = torch.full((len(rows),), torch.inf)
    place = torch.zeros(len(rows), dtype=torch.int64)
    for start in range(0, len(others), _CHUNK):
        distance, index = torch.cdist(rows, others[start : start + _CHUNK]).min(1)
        is_nearer = distance < best
        best = torch.where(is_nearer, distance, best)
        place = torch.where(is_nearer, index + start, place)
    return best, place


def effective_number(values: Tensor) -> float:
    """exp of the entropy of the histogram of `values` (B,): how many kinds there are, the rare ones counted less."""
    share = values.unique(return_counts=True)[1].double() / len(values)
    return (-(share * share.log()).sum()).exp().item()


def code_signs(mean: Tensor, logvar: Tensor) -> dict[str, float]:
    """Signs of codes q(z | x) = N(mean, diag(exp(logvar))) of data, (B, D) each.

    `active_units`: coordinates whose mean varies with x by more than 0.01 (Burda et al. 2016, Section 5.2).
    `mutual_information` of x and z in nats: E log q(z | x) / q(z) with q(z) the mixture over these B examples
    (Hoffman & Johnson 2016), at most log B; z is the mean of q, moved by one sigma in directions that are always the
    same, so that the figure needs no random numbers. Nothing is said of a single example, which varies with nothing.
    """
    if len(mean) < 2:
        return {}
    mean, logvar = mean.detach().double().cpu(), logvar.detach().double().cpu()
    generator = torch.Generator().manual_seed(0)
    z = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    precision = (-logvar).exp()
    distance = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(1)
    log_density = -0.5 * (distance + logvar.sum(1))  # (B, B): z of row i under q of column j, up to a constant
    log_mixture = log_density.logsumexp(1) - math.log(len(mean))
    information = (log_density.diagonal() - log_mixture).mean()
    return {
        "codes/active_units": int((mean.var(0) > 0.01).sum()),
        "codes/mutual_information": max(information.item(), 0.0),
    }
