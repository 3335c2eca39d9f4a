"""What models complete or go on from: `genai sample given=FOLDER` of images, `given=FILE` of a series or a sound."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Spec
from genai_cli.data.csv import read_series
from genai_cli.data.pictures import BrokenImage, file_paths, image_paths, read_picture, to_pixels
from genai_cli.data.recordings import BrokenSound
from genai_cli.data.wav import SUFFIXES, read_sound
from genai_cli.errors import ConfigError
from genai_cli.media.continuations import Given
from genai_cli.samplers.keep import kept_steps

TABLES = (".csv", ".csv.gz", ".csv.xz")


def read_given(
    path: Path, spec: Spec, *, keep: str | int | None = None, header: bool | None = None
) -> tuple[Tensor, list[str]]:
    """(N, *spec.shape) images of a folder, or (N, P, ...) series or sounds of a file or a folder of files.

    And what the user should know of how they were read, a sentence each. Of a signal the last `keep` steps are read,
    if that is a number, else at most a window of the data. `header` is that of the data set. Raises ConfigError or
    DataError.
    """
    match spec.modality:
        case "image":
            return read_images(path, spec), []
        case "series" | "audio":
            return _read_signals(path.expanduser(), spec, keep=keep, header=header)
    other = "; a prompt is what it goes on from: prompt=..." if spec.tokenizer or spec.modality == "rolls" else ""
    raise ConfigError(
        f"given={path}: there is nothing to complete in {spec.modality}, only in images, series and audio{other}"
    )


def read_images(folder: Path, spec: Spec) -> Tensor:
    """(N, *spec.shape): the images of a folder in the order of their names, in the range of the data.

    Another size is brought to that of the data; the sheet that lies beside samples is passed over. Raises ConfigError,
    naming what cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"given={folder} is no folder: put the images to be completed into one")
    channels, height, width = spec.shape
    low, high = spec.value_range
    images = []
    for name, reason in image_paths(folder):
        if name == "sheet.png":
            continue
        try:
            if reason is not None:
                raise BrokenImage(reason)
            picture = read_picture(folder / name)
        except BrokenImage as error:
            raise ConfigError(f"given={folder}: {name} cannot be read: {error}") from error
        pixels = to_pixels(picture, size=max(height, width), channels=channels)
        images.append(pixels[:, :height, :width].float() / 255 * (high - low) + low)
    if not images:
        raise ConfigError(f"given={folder} holds no image")
    return torch.stack(images)


def _read_signals(path: Path, spec: Spec, *, keep: str | int | None, header: bool | None) -> tuple[Tensor, list[str]]:
    suffixes, kind = (TABLES, "CSV") if spec.modality == "series" else (SUFFIXES, "WAV")
    most = keep if isinstance(keep, int) else spec.shape[0]
    signals: list[tuple[Path, Tensor]] = []
    notes = []
    for file in _files_of(path, suffixes):
        if spec.modality == "series":
            read = read_series(file, spec, header=header)
        else:
            try:
                sound, rate = read_sound(file, spec.sample_rate)
            except BrokenSound as error:
                raise DataError(f"given={file} cannot be read: {error}; give a WAV file") from error
            read = [sound]
            if rate != spec.sample_rate:
                notes.append(f"{file} has {rate:,} samples a second: brought to the {spec.sample_rate:,} of the run")
        if any(len(signal) > most for signal in read):
            longest = max(len(signal) for signal in read)
            notes.append(f"{file} has {longest:,} steps, of which the last {most:,} are read (keep=N takes the last N)")
        signals += ((file, signal[-most:]) for signal in read)
    if not signals:
        raise DataError(f"given={path} holds no {kind} file")
    _check_lengths(signals, keep)
    return torch.stack([signal for _, signal in signals]), notes


def _files_of(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file, or those of a folder in the order of their names. Raises DataError for what cannot be opened."""
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"given={path} cannot be read: there is no such file; check its path")
        return [path]
    listed = list(file_paths(path, suffixes))
    for name, reason in listed:
        if reason is not None:
            raise DataError(f"given={path}: {name} cannot be read: {reason}")
    return [path / name for name, _ in listed]


def _check_lengths(signals: Sequence[tuple[Path, Tensor]], keep: str | int | None) -> None:
    """All must be of one length, and as long as `keep` says. Raises ConfigError."""
    first, one = min(signals, key=lambda each: len(each[1]))
    last, other = max(signals, key=lambda each: len(each[1]))
    if isinstance(keep, int) and len(one) < keep:
        raise ConfigError(f"keep={keep} is more than the {len(one):,} steps of given={first}: keep at most so many")
    if len(one) < len(other):
        raise ConfigError(
            f"given: of {first} there are {len(one):,} steps and of {last} {len(other):,}: give keep={len(one)}, the "
            "last steps of each, so that all are of one length"
        )


def given_part(options: dict[str, Any], samples: Tensor) -> Given | None:
    """Of samples of signals (B, T, ...) made with `options` of the model's `sample`: what they were given.

    None where they were given nothing, or where none of it stays.
    """
    given, keep = options.get("given"), options.get("keep")
    if given is None or options.get("strength") is not None:
        return None
    stays = kept_steps(given, keep)
    whole = stays if isinstance(keep, int) else given
    length = samples.shape[1]
    return Given(_to_length(whole, length), _to_length(stays, length).isfinite())


def _to_length(signals: Tensor, length: int) -> Tensor:
    """(N, P, ...) to (N, length, ...), NaN beyond its end."""
    missing = signals.new_full((len(signals), max(0, length - signals.shape[1]), *signals.shape[2:]), torch.nan)
    return torch.cat([signals[:, :length], missing], 1)
