"""`genai evaluate`: every number that applies to a trained run, or to two folders of images, with its controls.

What the numbers mean is in docs/METRICS.md, how they are kept in `metrics/record.py`.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli import runs, schema
from genai_cli.commands.measure_benchmark import measure_benchmark
from genai_cli.commands.measure_condition import measure_condition
from genai_cli.commands.measure_figures import measure_figures, measure_text, text_windows
from genai_cli.commands.measure_forecasts import measure_forecasts
from genai_cli.commands.measure_passages import measure_passages
from genai_cli.commands.measure_rules import draw_few, has_rules, measure_rules
from genai_cli.commands.measure_samples import choose_extractor, measure_samples, metric_seed, sampler
from genai_cli.commands.tables import print_evaluation
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import DataError, Dataset, Split
from genai_cli.data.pictures import BrokenImage, image_paths, read_picture, to_pixels
from genai_cli.data.pixels import decode_images
from genai_cli.engine.device import choose_device
from genai_cli.engine.storage import check_writable, replace_durably, to_json
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.metrics.controls import blind_spots, void
from genai_cli.metrics.images import Images, measure_images
from genai_cli.metrics.record import Metric, evaluation_record
from genai_cli.runs import TrainedRun

GROUPS = {  # of metrics, by modality
    "image": (
        "figures", "frechet", "kid", "manifold", "modes", "agreement", "diversity", "memorisation",
        "classifier_accuracy_score",
    ),
    "points": ("figures", "frechet", "kid", "manifold", "modes"),
    "series": ("figures", "forecast", "frechet", "kid", "manifold", "modes"),
    "audio": ("figures", "frechet", "kid", "manifold", "modes"),
    "text": ("figures", "text", "rules", "passages"),
    "music": ("figures", "rules"),
    "molecules": ("figures", "rules", "benchmark", "condition"),
    "rolls": ("figures", "rules"),
}  # fmt: skip
FOLDER_GROUPS = ("frechet", "kid", "manifold", "diversity")


def run(config: EvaluateConfig, *, folder: Path | None) -> ExitCode:
    """Evaluate the run in `folder`, or without one the two folders of images of `config`."""
    if folder is None:
        return _evaluate_folders(config)
    device = choose_device(config.device)
    trained = runs.load_trained(
        folder, schema.read_run_config(folder), checkpoint=config.checkpoint, weights=config.weights, device=device,
        ema_length=config.ema_length,
    )  # fmt: skip
    dataset = runs.build_dataset(trained.config, trained.spec)
    runs.check_unchanged(dataset.spec, trained.spec, trained.config, folder)
    applicable = GROUPS.get(trained.model.shown_spec.modality, ("figures",))
    if config.text is None:
        split, split_name = dataset.load(config.split).to(device), str(config.split)
    else:
        split, split_name = text_windows(Path(config.text), trained).to(device), f"text={config.text}"
        applicable = ("figures", "text")
    groups = _groups(config, applicable, f"{trained.model.shown_spec.modality} data")
    check_writable(folder / "evaluation", f"run={folder}")
    _check_sampling(config, trained, groups)
    protocol = {"split": split_name, "split_sha256": split.content_hash(), "seed": config.seed}
    if config.ema_length is not None:
        protocol["ema_length"] = config.ema_length
    notes: list[str] = []
    metrics = list(_measure(config, trained, dataset, split, groups, protocol, notes, device))
    if not metrics:
        raise ConfigError(f"run={folder}: none of the metrics {', '.join(groups)} applies: {'; '.join(notes)}")
    about = {
        "run": str(trained.folder),
        "model": trained.config.model["name"],
        "dataset": runs.name_of_data(trained.config),
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
    drawn = {**protocol, "sampler": sampler(trained, config.sampling)}
    if "forecast" in groups:
        yield from measure_forecasts(trained, split, config, drawn, notes, device)
    if "passages" in groups:
        yield from measure_passages(trained, dataset, split, config, drawn, notes, device)
    if "condition" in groups and "asked" in (trained.spec.tokenizer or {}):
        yield from measure_condition(trained, split, config, drawn, notes, device)
    wants_rules = "rules" in groups and has_rules(trained.spec, trained.config.dataset["name"])
    if wants_rules or "benchmark" in groups:
        samples = draw_few(trained, config, device)
        if wants_rules:
            yield from measure_rules(trained, dataset, split, samples, config, drawn)
        if "benchmark" in groups:
            yield from measure_benchmark(trained, dataset, split, samples, config, drawn, notes)
    measured = ("figures", "forecast", "text", "rules", "benchmark", "passages", "condition")
    of_samples = tuple(group for group in groups if group not in measured)
    if of_samples:
        yield from _shown(measure_samples(config, trained, dataset, split, of_samples, protocol, notes, device))


def _check_sampling(config: EvaluateConfig, trained: TrainedRun, groups: tuple[str, ...]) -> None:
    """Options of samples are refused where none is drawn."""
    draws = set(groups) - {"figures", "text", "rules", "condition"}
    if "rules" in groups and has_rules(trained.spec, trained.config.dataset["name"]):
        draws.add("rules")
    if "condition" in groups and "asked" in (trained.spec.tokenizer or {}):
        draws.add("condition")
    if config.sampling and not draws:
        words = " and ".join(f"{key}={value}" for key, value in config.sampling.items())
        raise ConfigError(f"{words}: options of samples, and the metrics {', '.join(groups)} draw none; leave them out")


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
    """Judge the controls, print the record, write it: numbers that took hours are seen even if the disk is full."""
    metrics, voided = void(metrics)
    notes = [*notes, *blind_spots(metrics)]
    now = time.gmtime()
    record = evaluation_record(
        metrics, voided=voided, notes=notes, created=time.strftime("%Y-%m-%dT%H:%M:%SZ", now), **about
    )
    out.mkdir(parents=True, exist_ok=True)
    stem = time.strftime("%Y-%m-%dT%H-%M-%S", now)
    names = (f"{stem}.json", *(f"{stem}-{number:03d}.json" for number in range(2, 1000)))
    path = next(out / name for name in names if not (out / name).exists())
    print_evaluation(record)
    replace_durably(path, to_json(record))
    print(f"\nwritten to {path}")


# -- two folders -------------------------------------------------------------------------------------------------------


def _evaluate_folders(config: EvaluateConfig) -> ExitCode:
    """The images of `config.fake` held against those of `config.real`, one half of which is the control."""
    groups = _groups(config, FOLDER_GROUPS, "folders")
    check_writable(Path(config.root) / "evaluation", f"root={config.root}")
    real, real_hash = _read_folder(Path(config.real), config)
    fake, fake_hash = _read_folder(Path(config.fake), config)
    if min(len(real), len(fake)) < 12:
        raise DataError(f"{len(real)} and {len(fake)} images: at least 12 in each folder are needed")
    images = Images(fake=fake, real=real[0::2], control=real[1::2])
    protocol = {"split": "every other image", "split_sha256": real_hash, "fake_sha256": fake_hash, "seed": config.seed}
    seed, notes = metric_seed(config), []
    extractor = choose_extractor(config, tuple(real.shape[1:]), None, choose_device(config.device), notes)
    described = {**protocol, "image_size": config.image_size, "channels": config.channels}
    found = measure_images(images, extractor, groups, described, classifier=None, seed=seed)
    metrics = list(_shown(found))
    about = {
        "run": None, "model": None, "dataset": None, "step": None, "weights": None, "real": str(config.real),
        "fake": str(config.fake), **protocol, "num_examples": len(real),
    }  # fmt: skip
    _conclude(metrics, notes, about, Path(config.root) / "evaluation")
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
