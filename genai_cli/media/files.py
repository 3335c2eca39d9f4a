"""Samples as files: what each modality is read with, and one sheet to look at."""

import csv
import io
import os
from pathlib import Path

import numpy
from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.media.continuations import Given
from genai_cli.media.midi import midi_bytes
from genai_cli.media.sheets import images_to_uint8, in_units, join_texts, sheet, to_scores, tokens_to_texts
from genai_cli.media.sounds import SAMPLE_RATE, synthesise, wav_bytes

MOST_SOUNDS = 16


def write_samples(
    samples: Tensor, spec: Spec, folder: Path, *, shown: Tensor | None = None, given: Given | None = None
) -> Path:
    """Write `samples` (B, *spec.shape) into `folder` and return the path of the sheet, which is written last.

    Images: 00000.png, ... and sheet.png. Points: samples.csv and sheet.png. Text: 00000.txt, ..., samples.txt (all of
    them) and sheet.txt (the first). Music, rolls: 00000.mid, ..., the first 16 also as 00000.wav, ..., and sheet.png.
    Molecules: samples.smi, a SMILES a line, and sheet.png, or sheet.txt without RDKit. Series: samples.csv, in the
    units of the file that they were learned from, and sheet.png. Audio: 00000.wav, ... and sheet.png. The sheet is of
    `shown`, if that is there. Of signals that go on from `given` ones, the table and the sheet tell what was given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    match spec.modality:
        case "image":
            for i, image in enumerate(images_to_uint8(samples, spec)):
                write_file(folder / f"{i:05d}.png", png_bytes(image))
        case "points":
            write_file(folder / "samples.csv", csv_bytes(samples))
        case "series":
            write_file(folder / "samples.csv", series_csv_bytes(samples, spec, given=given))
        case "audio":
            for i, clip in enumerate(samples):
                write_file(folder / f"{i:05d}.wav", wav_bytes(clip, sample_rate=spec.sample_rate or SAMPLE_RATE))
        case "music" | "rolls":
            for i, score in enumerate(to_scores(samples, spec)):
                write_file(folder / f"{i:05d}.mid", midi_bytes(score))
                if i < MOST_SOUNDS:
                    write_file(folder / f"{i:05d}.wav", wav_bytes(synthesise(score)))
        case "molecules":
            write_file(folder / "samples.smi", "".join(f"{line}\n" for line in tokens_to_texts(samples, spec)).encode())
        case "text":
            texts = tokens_to_texts(samples, spec)
            for i, text in enumerate(texts):
                write_file(folder / f"{i:05d}.txt", text.encode())
            write_file(folder / "samples.txt", join_texts(texts).encode())
        case _:
            raise ValueError(f"no file format for the modality {spec.modality!r}")
    return write_sheet(sheet(samples if shown is None else shown, spec, given=given), folder / "sheet")


def write_sheet(picture: Tensor | str, path: Path) -> Path:
    """Write what `sheet` returned to `path` with .png or .txt added, and return that path."""
    if isinstance(picture, str):
        return write_file(path.with_name(path.name + ".txt"), picture.encode())
    return write_file(path.with_name(path.name + ".png"), png_bytes(picture))


def png_bytes(image: Tensor) -> bytes:
    """(C, H, W) uint8, C = 1 or 3, as a PNG file."""
    from PIL import Image

    pixels = image.squeeze(0) if len(image) == 1 else image.permute(1, 2, 0)
    content = io.BytesIO()
    Image.fromarray(numpy.ascontiguousarray(pixels.cpu().numpy())).save(content, format="PNG")
    return content.getvalue()


def csv_bytes(points: Tensor) -> bytes:
    """(B, D) as a table with a header: x,y where D is 2, else x0,x1,... Numbers read back as the same float32."""
    names = ["x", "y"] if points.shape[1] == 2 else [f"x{i}" for i in range(points.shape[1])]
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{value:.9g}" for value in row] for row in points.detach().cpu().tolist())
    return content.getvalue().encode()


def series_csv_bytes(series: Tensor, spec: Spec, *, given: Given | None = None) -> bytes:
    """(B, T, C) as a table with a header: a line for each step, after the numbers of its sample and of itself.

    Where the spec says how the columns were scaled, they are scaled back. With `given` series there is a column `kept`:
    1 where the whole step was given, else 0.
    """
    numbers = in_units(series, spec)
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["sample", "step", *([] if given is None else ["kept"]), *spec.columns])
    kept = [] if given is None else given.kept.all(2).int().tolist()  # N rows of T
    for i, steps in enumerate(numbers.tolist()):
        told = [[] if given is None else [kept[i % len(kept)][t]] for t in range(len(steps))]
        writer.writerows([i, t, *told[t], *(f"{value:.7g}" for value in step)] for t, step in enumerate(steps))
    return content.getvalue().encode()


def write_file(path: Path, content: bytes) -> Path:
    """Write a file that is whole or not there. Raises OSError with its name."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path
