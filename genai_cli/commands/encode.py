"""`genai encode`: the codes of a split, or of a folder of images, as a file for other programs.

A safetensors file: `codes`, (N, D) float32 of a model with one latent vector or (N, T) int64 of a quantiser, and
`label` (N,) int64 where there are labels. Its metadata say which run and data it is of, and the names of the images.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from genai_cli import runs, schema
from genai_cli.config import EncodeConfig
from genai_cli.data.base import DataError, Spec, Split
from genai_cli.data.pictures import BrokenImage, image_paths, read_picture, to_pixels
from genai_cli.data.pixels import image_split
from genai_cli.engine.device import choose_device
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
        raise ConfigError(f"run={folder}: model={trained.config.model['name']} has no encoder; a vae or an ae has one")
    names: list[str] = []
    if config.images is not None:
        split, names = read_images(Path(config.images).expanduser(), trained.spec)
    else:
        split = runs.build_dataset(trained.config, trained.spec).load(config.split)
    tensors = encode(trained.model, split.to(device), trained.spec, batch_size=config.batch_size)
    about = {
        "run": str(folder), "model": trained.config.model["name"], "step": str(trained.step),
        "data": config.images or f"{trained.config.dataset['name']} {config.split}", "sha256": split.content_hash(),
        "names": json.dumps(names),
    }  # fmt: skip
    stem = Path(config.images).name if config.images else config.split
    path = Path(config.out) if config.out else folder / "codes" / f"{stem}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, save(tensors, metadata=about))
    shape = " x ".join(map(str, tensors["codes"].shape))
    print(f"{shape} codes of {about['data']} from the weights of step {trained.step}\nwritten to {path}")
    return ExitCode.DONE


def can_encode(model: GenerativeModel) -> bool:
    return any(getattr(type(model), name) is not getattr(GenerativeModel, name) for name in ("encode", "codes_of"))


@torch.no_grad()
def encode(model: GenerativeModel, split: Split, spec: Spec, *, batch_size: int) -> dict[str, Tensor]:
    """`codes` of every example in the order of the split, and `label` where it has labels."""
    is_quantiser = type(model).codes_of is not GenerativeModel.codes_of
    parts: dict[str, list[Tensor]] = {"codes": [], "label": []}
    for start in range(0, len(split), batch_size):
        rows = split.fetch(torch.arange(start, min(start + batch_size, len(split))))
        x = rows[spec.key]
        codes = model.codes_of(x) if is_quantiser else model.encode(x).float()
        parts["codes"].append(codes.cpu())
        if "label" in rows:
            parts["label"].append(rows["label"].cpu())
    return {name: torch.cat(tensors).contiguous() for name, tensors in parts.items() if tensors}


def read_images(folder: Path, spec: Spec) -> tuple[Split, list[str]]:
    """The images below `folder` at the size of the spec, in the order of their names. Raises DataError."""
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
    return image_split(torch.stack(pixels)), names
