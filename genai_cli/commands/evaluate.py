"""`genai evaluate`: every number that applies to a trained run, or to two folders of images, with its controls.

What the numbers mean is in docs/METRICS.md, how they are kept in `metrics/record.py`.
"""

import inspect
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli import runs, schema
from genai_cli.commands.measure_figures import measure_figures, measure_text, text_windows
from genai_cli.commands.measure_rules import has_rules, measure_rules
from genai_cli.commands.tables import print_evaluation
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import DataError, Dataset, Split, SplitName
from genai_cli.data.pictures import BrokenImage, image_paths, read_picture, to_pixels
from genai_cli.data.pixels import decode_images
from genai_cli.engine.device import choose_device
from genai_cli.engine.progress import Progress
from genai_cli.engine.sampling import draw, source_positions
from genai_cli.engine.storage import replace_durably, to_json
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.metrics.controls import void
from genai_cli.metrics.features import (
    Extractor,
    accuracy,
    cached_classifier,
    efficientnet_extractor,
    num_steps,
    random_extractor,
    stacked,
    train_classifier,
)
from genai_cli.metrics.images import Images, measure_images
from genai_cli.metrics.points import Points, measure_points
from genai_cli.metrics.record import Metric, evaluation_record
from genai_cli.nn.random import mix
from genai_cli.runs import TrainedRun

GROUPS = {  # of metrics, by modality
    "image": (
        "figures", "frechet", "kid", "manifold", "modes", "agreement", "diversity", "memorisation",
        "classifier_accuracy_score",
    ),
    "points": ("figures", "frechet", "kid", "manifold", "modes"),
    "text": ("figures", "text", "rules"),
    "music": ("figures", "rules"),
    "molecules": ("figures", "rules"),
}  # fmt: skip
FOLDER_GROUPS = ("frechet", "kid", "manifold", "diversity")
MOST_BYTES = 700_000_000  # of one set of data held at once; more are represented by a random part
_CHOICE, _SAMPLES, _METRICS = 21, 22, 23  # uses of the seed


def run(config: EvaluateConfig, *, folder: Path | None) -> ExitCode:
    """Evaluate the run in `folder`, or without one the two folders of images of `config`."""
    if folder is None:
        return _evaluate_folders(config)
    device = choose_device(config.device)
    trained = runs.load_trained(
        folder, schema.read_run_config(folder), checkpoint=config.checkpoint, weights=config.weights, device=device
    )
    dataset = runs.build_dataset(trained.config)
    if dataset.spec != trained.spec:
        raise ConfigError(f"run={folder}: the data set is no longer what the run was trained on (see its spec.json)")
    applicable = GROUPS.get(trained.spec.modality, ("figures",))
    if config.text is None:
        split, split_name = dataset.load(config.split).to(device), str(config.split)
    else:
        split, split_name = text_windows(Path(config.text), trained).to(device), f"text={config.text}"
        applicable = ("figures", "text")
    groups = _groups(config, applicable, f"{trained.spec.modality} data")
    protocol = {"split": split_name, "split_sha256": split.content_hash(), "seed": config.seed}
    notes: list[str] = []
    metrics = list(_measure(config, trained, dataset, split, groups, protocol, notes, device))
    if not metrics:
        raise ConfigError(f"run={folder}: none of the metrics {', '.join(groups)} applies: {'; '.join(notes)}")
    about = {
        "run": str(trained.folder),
        "model": trained.config.model["name"],
        "dataset": trained.config.dataset["name"],
        "step": trained.step,
        "weights": "averaged" if trained.averaged else "raw",
        **protocol,
        "num_examples": len(split),
    }
    _conclude(metrics, notes, about, folder / "evaluation")
    return ExitCode.DONE


def _groups(config: EvaluateConfig, applicable: tuple[str, ...], what: str) -> tuple[str, ...]:
    wrong = [group for group in config.metrics or () if group not in applicable]
    if wrong:
        raise ConfigError(f"metrics=[{','.join(wrong)}] are not of {what}, which have {', '.join(applicable)}")
    return config.metrics or applicable


def _measure(
    config: EvaluateConfig, trained: TrainedRun, dataset: Dataset, split: Split, groups: tuple[str, ...],
    protocol: dict[str, Any], notes: list[str], device: torch.device,
) -> Iterator[Metric]:  # fmt: skip
    if "figures" in groups:
        yield from measure_figures(trained, dataset, split, config, protocol, notes, device)
    if "text" in groups:
        yield from measure_text(trained, dataset, split, config, protocol, notes, device)
    if "rules" in groups and has_rules(trained.spec, trained.config.dataset["name"]):
        yield from measure_rules(trained, dataset, split, config, protocol, device)
    of_samples = tuple(group for group in groups if group not in ("figures", "text", "rules"))
    if not of_samples:
        return
    fake = _draw(config, trained, split, device)
    seed = mix(config.seed, _METRICS) % 2**62
    protocol = {**protocol, "sampler": _sampler(trained)}
    other: SplitName = "validation" if config.split == "test" else "test"
    real, control = _choose(split, seed=config.seed), _choose(dataset.load(other), config.num_samples, seed=config.seed)
    if trained.spec.modality == "points":
        points = Points(fake, real["points"], control["points"])
        yield from measure_points(points, of_samples, protocol, seed=seed)
        return
    train = _choose(dataset.load("train"), seed=config.seed)
    classifier = _classifier(dataset, train, device)
    extractor = _extractor(config, trained.spec.shape, classifier, device)
    images = Images(
        fake=fake, real=real["image"], control=control["image"], train=train["image"],
        asked=_asked(config, trained, split), real_labels=real.get("label"), control_labels=control.get("label"),
        train_labels=train.get("label"), num_classes=len(trained.spec.classes),
    )  # fmt: skip
    notes += _left_out(of_samples, images)
    found = measure_images(images, extractor, of_samples, protocol, classifier=classifier, seed=seed)
    yield from _shown(found)


def _draw(config: EvaluateConfig, trained: TrainedRun, split: Split, device: torch.device) -> Tensor:
    """(num_samples, *spec.shape); sample i of a conditional model is of class i mod K."""
    progress = Progress(first=0, total=config.num_samples, unit="samples")
    try:
        return draw(
            trained.model, config.num_samples, seed=mix(config.seed, _SAMPLES), batch_size=config.batch_size,
            device=device, sources=split, report=progress.advance,
        ).float()  # fmt: skip
    finally:
        progress.close()


def _asked(config: EvaluateConfig, trained: TrainedRun, split: Split) -> Tensor | None:
    """The class that each sample was asked to be of: by a `label`, or by the source that is translated."""
    count = config.num_samples
    if trained.model.translates is not None:
        if not trained.spec.classes or not trained.spec.is_paired:
            return None
        positions = source_positions(len(split), count, seed=mix(config.seed, _SAMPLES))
        return split.fetch(positions)["label"].cpu()[torch.arange(count) % len(positions)]
    if not trained.spec.classes or "label" not in inspect.signature(trained.model.sample).parameters:
        return None
    options = trained.config.model
    if not options.get("conditional", True) or not options.get("condition", "label"):
        return None
    return torch.arange(count) % len(trained.spec.classes)


def _sampler(trained: TrainedRun) -> dict[str, Any]:
    """How samples are drawn: the model's own keys that say so."""
    return {key: value for key, value in trained.config.model.items() if key in ("solver", "sampling_steps")}


def _choose(split: Split, count: int | None = None, *, seed: int) -> dict[str, Tensor]:
    """`count` examples of a split at random (null: all; but never more than fit), on the CPU, in random order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(mix(seed, _CHOICE) % 2**62))
    size = sum(tensor.numel() * tensor.element_size() for tensor in split.fetch(order[:1]).values())
    order = order[: min(count or len(split), max(1, MOST_BYTES // size))]
    parts = [split.fetch(rows) for rows in order.split(1024)]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


def _extractor(
    config: EvaluateConfig, shape: tuple[int, ...], classifier: Extractor | None, device: torch.device
) -> Extractor:
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


def _left_out(groups: Iterable[str], images: Images) -> list[str]:
    """Why a group of metrics says nothing."""
    reasons = {
        "modes": images.real_labels is None and "the data have no labels",
        "agreement": images.asked is None and "the model is not conditional on classes",
        "classifier_accuracy_score": images.asked is None and "the model is not conditional on classes",
        "diversity": min(images.fake.shape[-2:]) < 11 and "images are smaller than 11 pixels",
    }
    return [f"{group}: {reasons[group]}" for group in groups if reasons.get(group)]


def _shown(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Each metric as it comes, its name on the terminal."""
    progress = sys.stderr.isatty()
    for metric in metrics:
        if progress:
            print(f"\r{metric.name}: measured".ljust(60), end="", file=sys.stderr, flush=True)
        yield metric
    if progress:
        print("\r".ljust(61), end="\r", file=sys.stderr, flush=True)


def _conclude(metrics: list[Metric], notes: list[str], about: dict[str, Any], out: Path) -> None:
    """Judge the controls, write the record, print it."""
    metrics, voided = void(metrics)
    now = time.gmtime()
    record = evaluation_record(
        metrics, voided=voided, notes=notes, created=time.strftime("%Y-%m-%dT%H:%M:%SZ", now), **about
    )
    out.mkdir(parents=True, exist_ok=True)
    stem = time.strftime("%Y-%m-%dT%H-%M-%S", now)
    names = (f"{stem}.json", *(f"{stem}-{number:03d}.json" for number in range(2, 1000)))
    path = next(out / name for name in names if not (out / name).exists())
    replace_durably(path, to_json(record))
    print_evaluation(record)
    print(f"\nwritten to {path}")


# -- two folders -------------------------------------------------------------------------------------------------------


def _evaluate_folders(config: EvaluateConfig) -> ExitCode:
    """The images of `config.fake` held against those of `config.real`, one half of which is the control."""
    groups = _groups(config, FOLDER_GROUPS, "folders")
    real, real_hash = _read_folder(Path(config.real), config)
    fake, fake_hash = _read_folder(Path(config.fake), config)
    if min(len(real), len(fake)) < 12:
        raise DataError(f"{len(real)} and {len(fake)} images: at least 12 in each folder are needed")
    images = Images(fake=fake, real=real[0::2], control=real[1::2])
    protocol = {"split": "every other image", "split_sha256": real_hash, "fake_sha256": fake_hash, "seed": config.seed}
    seed = mix(config.seed, _METRICS) % 2**62
    extractor = _extractor(config, tuple(real.shape[1:]), None, choose_device(config.device))
    described = {**protocol, "image_size": config.image_size, "channels": config.channels}
    found = measure_images(images, extractor, groups, described, classifier=None, seed=seed)
    metrics = list(_shown(found))
    about = {
        "run": None, "model": None, "dataset": None, "step": None, "weights": None, "real": str(config.real),
        "fake": str(config.fake), **protocol, "num_examples": len(real),
    }  # fmt: skip
    _conclude(metrics, [], about, Path(config.root) / "evaluation")
    return ExitCode.DONE


def _read_folder(folder: Path, config: EvaluateConfig) -> tuple[Tensor, str]:
    """(N, C, S, S) in [-1, 1], shuffled by content so that the order of names plays no part, and a hash of them all."""
    import hashlib

    pixels, broken = {}, []
    for name, reason in image_paths(folder.expanduser()):
        try:
            if reason is not None:
                raise BrokenImage(reason)
            picture = read_picture(folder.expanduser() / name)
            image = to_pixels(picture, size=config.image_size, channels=config.channels)
            pixels[hashlib.sha256(image.numpy().tobytes()).hexdigest() + name] = image
        except BrokenImage as error:
            broken.append(f"{name}: {error}")
    if broken:
        raise DataError(f"{len(broken)} images in {folder} cannot be read, such as {broken[0]}")
    if not pixels:
        raise DataError(f"{folder} holds no images")
    keys = sorted(pixels)
    digest = hashlib.sha256("\n".join(key[:64] for key in keys).encode()).hexdigest()
    return decode_images({"image": torch.stack([pixels[key] for key in keys])})["image"], digest
