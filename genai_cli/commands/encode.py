"""`genai encode`: the codes of a split, of a folder of images or of lines of text, as a file for other programs.

A safetensors file: `codes`, (N, D) float32 of a model with one latent vector or of one that embeds texts, (N, T) int64
of a quantiser, and `label` (N,) int64 where there are labels. Its metadata say which run and data it is of,
and the names of the images, or the texts.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from genai_cli import runs, schema
from genai_cli.config import EncodeConfig
from genai_cli.data.base import DataError, Spec, Split, TensorSplit
from genai_cli.data.folder import class_names, label_name, printable
from genai_cli.data.pictures import BrokenImage, image_paths, read_picture, to_pixels
from genai_cli.data.pixels import image_split
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.data.windows import decode_utf8, read_text
from genai_cli.engine.device import choose_device
from genai_cli.engine.storage import check_writable
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.media.files import write_file
from genai_cli.models.base import GenerativeModel


def run(config: EncodeConfig, *, folder: Path) -> ExitCode:
    """Encode what `config` names with the run in `folder`."""
    device = choose_device(config.device)
    trained = runs.load_trained(
        folder, schema.read_run_config(folder), checkpoint=config.checkpoint, weights=config.weights, device=device
    )
    if not can_encode(trained.model):
        raise ConfigError(
            f"run={folder}: model={trained.config.model['name']} has no encoder; a vae, an ae or a bert has one"
        )
    given, names = config.images or config.texts, []
    stem = Path(given).name if given else config.split
    path = Path(config.out) if config.out else folder / "codes" / f"{stem}.safetensors"
    check_writable(path.parent, f"out={path}")
    if config.images is not None and config.texts is not None:
        raise ConfigError(f"images={config.images} and texts={config.texts}: give one of them")
    if config.label is not None and config.images is None:
        raise ConfigError(f"label={config.label} is the class of the images of a folder: give images=FOLDER, too")
    if config.texts is not None:
        splits, names = read_texts(Path(config.texts).expanduser(), trained.spec)
    elif config.images is not None:
        split, names = read_images(Path(config.images).expanduser(), trained.spec, label=config.label)
        splits = [split]
    else:
        splits = [runs.build_dataset(trained.config, trained.spec).load(config.split)]
    parts = [encode(trained.model, split.to(device), trained.spec, batch_size=config.batch_size) for split in splits]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    about = {
        "run": str(folder), "model": trained.config.model["name"], "step": str(trained.step),
        "data": given or f"{runs.name_of_data(trained.config)} {config.split}", "sha256": hash_of(splits),
        "names": json.dumps(names),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, save(tensors, metadata=about))
    shape = " x ".join(map(str, tensors["codes"].shape))
    print(f"{shape} codes of {about['data']} from the weights of step {trained.step}\nwritten to {path}")
    return ExitCode.DONE


def can_encode(model: GenerativeModel) -> bool:
    return any(
        getattr(type(model), name) is not getattr(GenerativeModel, name)
        for name in ("encode", "encode_rows", "codes_of", "embed")
    )


def hash_of(splits: Sequence[Split]) -> str:
    """That of the only split, or of those of all together."""
    hashes = [split.content_hash() for split in splits]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


@torch.no_grad()
def encode(model: GenerativeModel, split: Split, spec: Spec, *, batch_size: int) -> dict[str, Tensor]:
    """`codes` of every example in the order of the split, and `label` where it has labels. Raises ConfigError."""
    is_quantiser = type(model).codes_of is not GenerativeModel.codes_of
    is_embedder = type(model).embed is not GenerativeModel.embed
    parts: dict[str, list[Tensor]] = {"codes": [], "label": []}
    for start in range(0, len(split), batch_size):
        rows = split.fetch(torch.arange(start, min(start + batch_size, len(split))))
        x = rows[spec.key]
        if is_quantiser:
            codes = model.codes_of(x)
        elif is_embedder:
            codes = model.embed(x[:, 1:], rows["mask"]).float()
        else:
            codes = _encode_rows(model, rows).float()
        parts["codes"].append(codes.cpu())
        if "label" in rows:
            parts["label"].append(rows["label"].cpu())
    return {name: torch.cat(tensors).contiguous() for name, tensors in parts.items() if tensors}


def _encode_rows(model: GenerativeModel, rows: dict[str, Tensor]) -> Tensor:
    try:
        return model.encode_rows(rows)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def read_images(folder: Path, spec: Spec, *, label: int | None = None) -> tuple[Split, list[str]]:
    """The images below `folder` at the size of the spec, in the order of their names. Raises DataError, ConfigError.

    They are of the class `label`, or of that by which their sub-folder is named where all of these are classes.
    """
    if spec.modality != "image" or spec.shape[1] != spec.shape[2]:
        raise ConfigError(f"images={folder}: the run was not trained on square images")
    if not folder.is_dir():
        raise DataError(f"images={folder} is not a folder: give one that holds images")
    pixels, names = [], []
    for name, reason in image_paths(folder):
        try:
            if reason is not None:
                raise BrokenImage(reason)
            pixels.append(to_pixels(read_picture(folder / name), size=spec.shape[1], channels=spec.shape[0]))
        except BrokenImage as error:
            raise DataError(f"{folder / name} cannot be read: {error}") from error
        names.append(name)
    if not pixels:
        raise DataError(f"{folder} holds no images")
    return image_split(torch.stack(pixels), read_labels(names, spec, label)), names


def read_labels(names: Sequence[str], spec: Spec, label: int | None) -> Tensor | None:
    """Of images in a folder, (N,) int64; None where it does not say. Raises ConfigError."""
    if label is not None:
        if label >= len(spec.classes):
            raise ConfigError(f"label={label} must be below {len(spec.classes)}, the number of classes of the run")
        return torch.full((len(names),), label)
    folders = {printable(name) for name in class_names(names)}
    if not folders or not folders <= set(spec.classes):
        return None
    return torch.tensor([spec.classes.index(printable(label_name(name))) for name in names])


def read_texts(path: Path, spec: Spec) -> tuple[list[TensorSplit], list[str]]:
    """The lines of a file that are not empty, each an example by itself, and these. Raises DataError, ConfigError."""
    if spec.modality != "text":
        raise ConfigError(f"texts={path}: the run learned {spec.modality}, not text")
    if not path.is_file():
        raise DataError(f"texts={path} is not there: give a file with a text on each line")
    tokenizer, lines = tokenizer_of(spec), []
    names = [line for line in decode_utf8(read_text(path), str(path)).splitlines() if line.strip()]
    for number, line in enumerate(names, start=1):
        try:
            tokens = torch.cat([torch.tensor([tokenizer.start]), tokenizer.encode(line)])[None]  # (1, T + 1)
        except ValueError as error:
            raise ConfigError(f"texts={path}: text {number}: {error}; a model of bytes reads every text") from error
        if tokens.shape[1] - 1 > spec.shape[0]:
            raise ConfigError(f"texts={path}: text {number} has more than the {spec.shape[0]} tokens of a window")
        mask = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
        lines.append(TensorSplit({"tokens": tokens, "mask": mask}, dict))
    if not lines:
        raise DataError(f"texts={path} holds no text")
    return lines, names
