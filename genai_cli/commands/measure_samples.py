"""The numbers of an evaluation that are of samples: which are drawn, what they are held against, what compares them."""

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.commands.sampling import sampling_options
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Dataset, Split, SplitName
from genai_cli.engine.progress import Progress
from genai_cli.engine.sampling import draw, source_positions
from genai_cli.errors import ConfigError
from genai_cli.metrics.features import (
    Extractor,
    accuracy,
    cached_classifier,
    efficientnet_extractor,
    inception_extractor,
    num_steps,
    random_extractor,
    stacked,
    train_classifier,
)
from genai_cli.metrics.images import Images, measure_images
from genai_cli.metrics.points import Points, measure_points
from genai_cli.metrics.record import Metric
from genai_cli.metrics.sounds import DESCRIPTION, as_vectors
from genai_cli.nn.random import mix
from genai_cli.runs import TrainedRun

VECTORS = {  # kinds of data that are compared without a network, and by what
    "points": "none: coordinates as they are",
    "series": "none: the numbers of a window as they are fed, as one vector",
    "audio": DESCRIPTION,
}
MOST_BYTES = 700_000_000  # of one set of data held at once; more are represented by a random part
_CHOICE, _SAMPLES, _METRICS = 21, 22, 23  # uses of the seed


def measure_samples(
    config: EvaluateConfig, trained: TrainedRun, dataset: Dataset, split: Split, groups: tuple[str, ...],
    protocol: dict[str, Any], notes: list[str], device: torch.device,
) -> Iterator[Metric]:  # fmt: skip
    """The metrics of `groups` of samples drawn as `config.sampling` says."""
    seed = metric_seed(config)
    protocol = {**protocol, "sampler": sampler(trained, config.sampling)}
    if dataset.source is not None:  # samples are judged as what they decode to
        dataset = dataset.source
        split = dataset.load(config.split).to(device)
        protocol["split_sha256"] = split.content_hash()
    key = trained.model.shown_spec.key
    if trained.model.translates is not None:
        _, key = trained.model.sides(**config.sampling)
    shown = trained.model.shown_spec.side(key)
    other: SplitName = "validation" if config.split == "test" else "test"
    real, control = _choose(split, seed=config.seed), _choose(dataset.load(other), config.num_samples, seed=config.seed)
    if shown.modality in VECTORS:
        fake = _draw_shown(config, trained, split, device)
        if fake.shape[1:] != real[key].shape[1:]:
            raise ConfigError(f"length={fake.shape[1]}: data are compared as windows of {real[key].shape[1]}")
        points = Points(*(as_vectors(x, shown) for x in (fake, real[key], control[key])))
        protocol["preprocessing"] = VECTORS[shown.modality]
        yield from measure_points(points, groups, protocol, seed=seed)
        return
    train = _choose(dataset.load("train"), seed=config.seed)
    if key == "source":  # labels are of what the sources belong to
        real, control, train = ({key: rows[key]} for rows in (real, control, train))
    classifier = _classifier(dataset, train, device)
    extractor = choose_extractor(config, shown.shape, classifier, device, notes)
    fake = _draw_shown(config, trained, split, device)
    images = Images(
        fake=fake, real=real[key], control=control[key], train=train[key],
        asked=_asked(config, trained, split if "label" in real else None), real_labels=real.get("label"),
        control_labels=control.get("label"), train_labels=train.get("label"), num_classes=len(trained.spec.classes),
        class_shares=class_shares(dataset, config.split),
    )  # fmt: skip
    if config.sampling.get("label") is not None and "classifier_accuracy_score" in groups:
        groups = tuple(group for group in groups if group != "classifier_accuracy_score")
        notes.append("classifier_accuracy_score: samples of one class teach a classifier nothing")
    notes += _left_out(groups, images)
    yield from measure_images(images, extractor, groups, protocol, classifier=classifier, seed=seed)


def metric_seed(config: EvaluateConfig) -> int:
    """Of what the metrics themselves draw."""
    return mix(config.seed, _METRICS) % 2**62


def draw_samples(
    config: EvaluateConfig, trained: TrainedRun, device: torch.device, sources: Split | None = None
) -> Tensor:
    """(num_samples, *spec.shape); sample i of a conditional model is of class i mod K, or of the `label` given.

    A model that translates is given `sources`.
    """
    options = sampling_options(config.sampling, trained)
    progress = Progress(first=0, total=config.num_samples, unit="samples")
    try:
        return draw(
            trained.model, config.num_samples, seed=mix(config.seed, _SAMPLES), batch_size=config.batch_size,
            device=device, options=options, sources=sources, report=progress.advance,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"model={trained.config.model['name']} cannot sample so: {error}") from error
    finally:
        progress.close()


def _draw_shown(config: EvaluateConfig, trained: TrainedRun, sources: Split, device: torch.device) -> Tensor:
    """(num_samples, *shown_spec.shape): samples as what they are seen as."""
    samples = draw_samples(config, trained, device, sources)
    return torch.cat([trained.model.shown(part) for part in samples.split(config.batch_size)]).float()


def sampler(trained: TrainedRun, given: dict[str, Any]) -> dict[str, Any]:
    """How samples are drawn: every option of the model's `sample` that has a value, given, by default or of the run."""
    parameters = inspect.signature(trained.model.sample).parameters.values()
    options = {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    own = {key.removeprefix("sampling_"): trained.config.model.get(key) for key in ("solver", "sampling_steps")}
    if given.get("evaluations") is not None:
        own.pop("steps")  # these decide them
    options |= {key: value for key, value in own.items() if options.get(key, 0) is None}
    return {key: value for key, value in {**options, **given}.items() if value is not None}


def _asked(config: EvaluateConfig, trained: TrainedRun, sources: Split | None) -> Tensor | None:
    """The class that each sample was asked to be of: by a `label`, or by that of the pair whose source it is made from.

    None where the model was not trained with labels, or the data (`sources`) have none.
    """
    count, label = config.num_samples, config.sampling.get("label")
    if trained.model.translates is not None:
        if sources is None or not trained.spec.is_paired or "given" in config.sampling:
            return None
        positions = source_positions(len(sources), count, seed=mix(config.seed, _SAMPLES))
        return sources.fetch(positions)["label"].cpu()[torch.arange(count) % len(positions)]
    if not trained.spec.classes or "label" not in inspect.signature(trained.model.sample).parameters:
        return None
    options = trained.config.model
    if not options.get("conditional", True) or not options.get("condition", "label"):
        return None
    return torch.arange(count) % len(trained.spec.classes) if label is None else torch.full((count,), label)


def _choose(split: Split, count: int | None = None, *, seed: int) -> dict[str, Tensor]:
    """`count` examples of a split at random (null: all; but never more than fit), on the CPU, in random order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(mix(seed, _CHOICE) % 2**62))
    size = sum(tensor.numel() * tensor.element_size() for tensor in split.fetch(order[:1]).values())
    order = order[: min(count or len(split), max(1, MOST_BYTES // size))]
    parts = [split.fetch(rows) for rows in order.split(1024)]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


def choose_extractor(
    config: EvaluateConfig, shape: tuple[int, ...], classifier: Extractor | None, device: torch.device,
    notes: list[str],
) -> Extractor:  # fmt: skip
    """What images are compared by, as `config` says; by default the classifier of the data, where there is one."""
    if config.inception is not None:
        extractor = inception_extractor(Path(config.inception), device)
        if not extractor.is_fid:
            notes.append("inception: the file is not the published one (docs/METRICS.md), so no distance is called FID")
        return extractor
    if config.extractor == "efficientnet":
        return efficientnet_extractor(device)
    return random_extractor(shape) if classifier is None or config.extractor == "random" else classifier


def _classifier(dataset: Dataset, train: dict[str, Tensor], device: torch.device) -> Extractor | None:
    """The classifier of the data, from the cache or trained now; none of data without labels."""
    if "label" not in train:
        return None
    if dataset.per_channel is not None:
        per_channel = _choose(dataset.per_channel.load("train"), seed=0)
        return stacked(_classifier(dataset.per_channel, per_channel, device), dataset.spec.shape[0])
    shape, num_classes = dataset.spec.shape, len(dataset.spec.classes)

    def train_now() -> tuple[Any, float]:
        print("training the classifier that images are compared by: once for these data", flush=True)
        progress = Progress(first=0, total=num_steps(), unit="steps")
        try:
            network = train_classifier(
                train["image"], train["label"], num_classes, device=device, report=progress.advance
            )
        finally:
            progress.close()
        test = _choose(dataset.load("test"), seed=0)
        return network.cpu(), accuracy(network, test["image"], test["label"])

    identity = {name: dataset.load(name).content_hash() for name in ("train", "test")}
    return cached_classifier(identity, shape, num_classes, train_now)


def class_shares(dataset: Dataset, split: SplitName) -> Tensor | None:
    """(K^C,): the share of every tuple of classes, where each of C channels is drawn by itself; else None.

    A count of the tuples met in the split would have an error of its own, as large as a perfect generator's.
    """
    if dataset.per_channel is None:
        return None
    labels = _choose(dataset.per_channel.load(split), seed=0)["label"]
    of_one = torch.bincount(labels, minlength=len(dataset.per_channel.spec.classes)).double() / len(labels)
    shares = torch.ones(1, dtype=torch.float64)
    for _ in range(dataset.spec.shape[0]):
        shares = (shares[:, None] * of_one).flatten()
    return shares


def _left_out(groups: Iterable[str], images: Images) -> list[str]:
    """Why a group of metrics says nothing."""
    reasons = {
        "modes": images.real_labels is None and "the data have no labels",
        "agreement": images.asked is None and "the model is not conditional on classes",
        "classifier_accuracy_score": images.asked is None and "the model is not conditional on classes",
        "diversity": min(images.fake.shape[-2:]) < 11 and "images are smaller than 11 pixels",
    }
    return [f"{group}: {reasons[group]}" for group in groups if reasons.get(group)]
