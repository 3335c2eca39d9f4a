"""Every number about a set of images that applies, beside its controls: what `genai evaluate` says of an image model.

All images are (N, C, H, W) in [-1, 1]. What is compared are the features of `metrics/features.py`; what is copied or
alike is judged by the pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genai_cli.metrics.bootstrap import OF_SHARES, REPLICATES, mean_interval, resampled_interval, share_interval
from genai_cli.metrics.comparison import NUM_CELLS, Sets, distances, manifolds, uniform_like, without_modes
from genai_cli.metrics.diversity import similarity_of_pairs
from genai_cli.metrics.features import Extractor, train_classifier
from genai_cli.metrics.memorisation import Closeness, closeness
from genai_cli.metrics.modes import (
    assign,
    divergence_floor,
    divergence_interval,
    histogram,
    histogram_divergence,
    partition,
)
from genai_cli.metrics.record import Metric

NUM_PAIRS = 2000  # of images whose likeness is measured
LEAST_ACCURACY = 0.95  # of a classifier whose word on a sample's class is taken
SCORE_EXAMPLES = 30_000  # seen in training by each classifier of the classifier accuracy score
_NOISE, _PAIRS, _SHUFFLE, _FLOOR = 1, 2, 3, 4  # added to the seed


@dataclass(frozen=True)
class Images:
    """The samples, and the data that they are held against."""

    fake: Tensor  # (M, C, H, W)
    real: Tensor  # (N, C, H, W), of the split that the report is on
    control: Tensor  # (n, C, H, W), held-out data of another split
    train: Tensor | None = None  # (T, C, H, W), what the model learned from
    asked: Tensor | None = None  # (M,) the classes that were asked for, of a conditional model
    real_labels: Tensor | None = None
    control_labels: Tensor | None = None
    train_labels: Tensor | None = None
    num_classes: int = 0
    class_shares: Tensor | None = None  # (K,) of the data, where they are known better than by counting real_labels


def measure_images(
    images: Images, extractor: Extractor, groups: tuple[str, ...], protocol: Mapping[str, Any], *,
    classifier: Extractor | None, seed: int,
) -> Iterator[Metric]:  # fmt: skip
    """The metrics of `groups` that apply, one after the other: each may take seconds.

    `extractor` gives the features that are compared, `classifier` the classes, where the data have labels.
    """
    noise = uniform_like(images.control, (-1.0, 1.0), seed=seed + _NOISE)
    protocol = {**protocol, "preprocessing": "none: pixels in [-1, 1] at their own size"}
    if {"frechet", "kid", "manifold"} & set(groups):
        sets = feature_sets(images, extractor, noise, seed=seed)
        described = {**protocol, **extractor.protocol()}
        yield from distances(sets, groups, described, seed=seed)
        if "manifold" in groups:
            yield from manifolds(sets, described, seed=seed)
    if "modes" in groups and classifier is not None:
        yield from class_modes(images, classifier, protocol, seed=seed)
    if "agreement" in groups and classifier is not None and images.asked is not None:
        yield agreement(images, classifier, protocol, seed=seed)
    if "diversity" in groups and min(images.fake.shape[-2:]) >= 11:
        yield similarity(images, classifier, protocol, seed=seed)
    if "memorisation" in groups and images.train is not None:
        yield from memorisation(images, protocol, seed=seed)
    if "classifier_accuracy_score" in groups and images.asked is not None and images.train_labels is not None:
        yield classifier_accuracy_score(images, protocol, seed=seed)


def feature_sets(images: Images, extractor: Extractor, noise: Tensor, *, seed: int) -> Sets:
    control = extractor.features(images.control)
    modes = images.control_labels
    if modes is None:  # no classes: cells of the features stand for them
        modes = assign(control, partition(control, min(NUM_CELLS, len(control)), seed=seed))
    controls = {
        "real": control,
        "noise": extractor.features(noise),
        "one_mode_removed": without_modes(control, modes),
    }
    halved = without_modes(control, modes, share=0.5)
    return Sets(extractor.features(images.real), extractor.features(images.fake), controls, halved)


def _of_classifier(classifier: Extractor, protocol: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**protocol, **classifier.protocol(), "id": f"{name}/classifier", "kind": "sample"}


def _why_not(classifier: Extractor) -> str | None:
    if classifier.accuracy is not None and classifier.accuracy >= LEAST_ACCURACY:
        return None
    return f"the classifier itself is right on only {100 * (classifier.accuracy or 0):.1f} % of the test split"


def class_modes(images: Images, classifier: Extractor, protocol: Mapping[str, Any], *, seed: int) -> Iterator[Metric]:
    """How many classes have a sample, and the divergence of the histogram of classes from the data's."""
    fake, control = classifier.classify(images.fake), classifier.classify(images.control)
    data = images.class_shares
    if data is None:
        data = histogram(images.real_labels, images.num_classes)
    without = without_modes(control, control)
    described = {
        **_of_classifier(classifier, protocol, "modes"), "n_fake": len(fake), "n_real": len(images.real),
        "n_control": len(control), "modes": images.num_classes, "bootstrap": "samples, 200 times",
    }  # fmt: skip
    counted = {name: _modes(labels, data) for name, labels in (("real", control), ("one_mode_removed", without))}
    count = _modes(fake, data)
    yield Metric(
        "modes", count, (count, count), f"of {images.num_classes} classes", "higher",
        described | {"bootstrap": "none: a count"}, counted, _why_not(classifier),
    )  # fmt: skip
    divergence = {
        "real": histogram_divergence(histogram(control, len(data)), data),
        "one_mode_removed": histogram_divergence(histogram(without, len(data)), data),
        "floor": divergence_floor(len(fake), data, seed=seed + _FLOOR),
    }
    yield Metric(
        "mode_divergence", histogram_divergence(histogram(fake, len(data)), data),
        divergence_interval(fake, data, seed=seed), "nats", "lower",
        described | {"id": "mode_divergence/classifier"}, divergence, _why_not(classifier),
    )  # fmt: skip


def _modes(labels: Tensor, data: Tensor) -> float:
    return float((histogram(labels, len(data)) > 0).sum())


def agreement(images: Images, classifier: Extractor, protocol: Mapping[str, Any], *, seed: int) -> Metric:
    """The share of samples that the classifier takes for the class that was asked for."""
    is_asked = (classifier.classify(images.fake) == images.asked).double()
    found = classifier.classify(images.control)
    shuffled = images.control_labels[_permutation(len(found), seed + _SHUFFLE)]
    controls = {
        "real": (found == images.control_labels).double().mean().item(),
        "shuffled_labels": (found == shuffled).double().mean().item(),
    }
    described = {
        **_of_classifier(classifier, protocol, "agreement"), "n_fake": len(is_asked), "n_control": len(found),
        "bootstrap": OF_SHARES,
    }  # fmt: skip
    return Metric(
        "agreement", is_asked.mean().item(), share_interval(is_asked), "share of samples", "higher",
        described, controls, _why_not(classifier),
    )  # fmt: skip


def similarity(images: Images, classifier: Extractor | None, protocol: Mapping[str, Any], *, seed: int) -> Metric:
    """Mean MS-SSIM of random pairs, of one class where a classifier can tell classes."""
    name = "ms_ssim" if classifier is None else "intra_class_ms_ssim"
    found = {
        key: similarity_of_pairs(
            (x + 1) / 2, None if classifier is None else classifier.classify(x), num_pairs=NUM_PAIRS, seed=seed + _PAIRS
        )
        for key, x in (("fake", images.fake), ("real", images.control))
    }
    described = dict(protocol) if classifier is None else _of_classifier(classifier, protocol, name)
    described |= {
        "id": f"{name}/pixels", "kind": "sample", "n_fake": len(images.fake), "pairs": NUM_PAIRS,
        "bootstrap": f"pairs, {REPLICATES} times",
    }  # fmt: skip
    fake = found["fake"]
    interval = mean_interval(fake, seed=seed) if len(fake) else None
    value = fake.mean().item() if len(fake) else float("nan")
    return Metric(name, value, interval, "similarity", "none", described, {"real": found["real"].mean().item()})


def memorisation(images: Images, protocol: Mapping[str, Any], *, seed: int) -> Iterator[Metric]:
    """How often a sample is closer to the training data than to as many held-out data, and the ratio of distances."""
    size = min(len(images.train), len(images.real))
    train, held_out = images.train[:size], images.real[:size]
    found: dict[str, Closeness] = {
        name: closeness(x, train, held_out)
        for name, x in (("fake", images.fake), ("real", images.control), ("train", train[: len(images.fake)]))
    }
    share = {name: close.is_closer_to_train.mean().item() for name, close in found.items()}
    described = {
        **protocol, "id": "memorisation/pixels", "kind": "sample", "n_fake": len(images.fake), "n_train": size,
        "n_real": size, "bootstrap": OF_SHARES,
    }  # fmt: skip
    columns = found["fake"].is_closer_to_train
    yield Metric(
        "memorisation", share.pop("fake"), share_interval(columns), "share closer to training data",
        "lower", described, share,
    )  # fmt: skip
    ratios = {name: close.ratio for name, close in found.items()}
    interval = resampled_interval(
        ratios["fake"], lambda rows: found["fake"].of(rows).ratio, len(images.fake), seed=seed
    )  # fmt: skip
    yield Metric(
        "memorisation_ratio", ratios.pop("fake"), interval, "distance to training over to held-out data", "none",
        described | {"id": "memorisation_ratio/pixels", "bootstrap": f"samples, {REPLICATES} times"}, ratios,
    )  # fmt: skip


def classifier_accuracy_score(images: Images, protocol: Mapping[str, Any], *, seed: int) -> Metric:
    """Ravuri & Vinyals 2019 (arXiv:1905.10887): the accuracy on data of a classifier trained on samples alone.

    Beside it that of the same network trained on as many training data, and on samples with shuffled labels.
    """
    size = min(len(images.fake), len(images.train))
    shuffled = images.asked[_permutation(len(images.asked), seed + _SHUFFLE)]
    sources = {
        "fake": (images.fake, images.asked),
        "real": (images.train[:size], images.train_labels[:size]),
        "shuffled_labels": (images.fake, shuffled),
    }
    right = {}
    for name, (x, labels) in sources.items():
        network = train_classifier(x, labels, images.num_classes, examples_seen=SCORE_EXAMPLES)
        right[name] = (Extractor("classifier", network, None).classify(images.real) == images.real_labels).double()
    described = {
        **protocol, "id": "classifier_accuracy_score", "kind": "sample", "n_fake": len(images.fake),
        "n_real": len(images.real), "n_control": size, "examples_seen": SCORE_EXAMPLES,
        "bootstrap": OF_SHARES,
    }  # fmt: skip
    fake = right.pop("fake")
    controls = {name: column.mean().item() for name, column in right.items()}
    few = f"{len(images.fake)} samples are too few to train a classifier on" if len(images.fake) < 1000 else None
    return Metric(
        "classifier_accuracy_score", fake.mean().item(), share_interval(fake), "share of test data",
        "higher", described, controls, few,
    )  # fmt: skip


def _permutation(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))
