"""From the options of samples as they were typed to the arguments of the model's `sample`."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.data.music_tokens import read_score
from genai_cli.data.pictures import BrokenImage, image_paths, read_picture, to_pixels
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.errors import ConfigError
from genai_cli.media.midi import quantise
from genai_cli.media.rolls import roll_of_score
from genai_cli.models.base import GenerativeModel
from genai_cli.runs import TrainedRun, load_another


def sampling_options(typed: dict[str, Any], trained: TrainedRun) -> dict[str, Any]:
    """The keyword arguments of the model's `sample`: as typed, prompts as tokens, given images as pixels."""
    options = dict(typed)
    if trained.spec.tokenizer is not None or trained.spec.modality == "rolls":
        if isinstance(options.get("prompt"), str):
            options["prompt"] = _read_prompt(options["prompt"], trained)
        if isinstance(options.get("prompts"), list):
            options["prompts"] = [_read_prompt(prompt, trained) for prompt in options["prompts"]]
    if isinstance(options.get("given"), str):
        side, _ = trained.model.sides(**options)
        spec = trained.spec if trained.model.translates is None else trained.spec.side(side)
        options["given"] = read_given(Path(options["given"]), spec)
    if isinstance(options.get("guide"), str):
        device = next(trained.model.parameters()).device
        options["guide"] = load_another("guide", options["guide"], trained.spec, device).model
    if "keep" in options and "given" not in options:
        raise ConfigError(f"keep={options['keep']} says what of given images stays: say which, given=FOLDER")
    return options


def asking_prompt(condition: dict[str, float], options: dict[str, Any], trained: TrainedRun) -> Tensor:
    """The prompt among `options`, if any, with the token that asks for a property in place of its first."""
    words = ", ".join(f"condition.{name}={value:g}" for name, value in condition.items())
    tokenizer = tokenizer_from_json(trained.spec.tokenizer) if trained.spec.tokenizer else None
    takes_prompt = "prompt" in inspect.signature(trained.model.sample).parameters
    sees_what_asks = type(trained.model).read_prompt is GenerativeModel.read_prompt
    if not isinstance(tokenizer, SmilesTokenizer) or not takes_prompt or not sees_what_asks:
        raise ConfigError(
            f"{words}: only molecules can be asked for, of a model that reads what stands before them; a gpt does"
        )
    if "prompts" in options:
        raise ConfigError(f"{words}: goes with one prompt, not with prompts")
    try:
        token = tokenizer.asking(condition)
    except ValueError as error:
        raise ConfigError(f"{words}: {error}") from error
    prompt = options.get("prompt", torch.zeros(1, dtype=torch.int64))
    return torch.cat([torch.tensor([token]), prompt[1:]])


def read_given(folder: Path, spec: Spec) -> Tensor:
    """(N, *spec.shape): the images of a folder in the order of their names, in the range of the data.

    Another size is brought to that of the data; the sheet that lies beside samples is passed over. Raises ConfigError,
    naming what cannot be read.
    """
    if spec.modality != "image":
        raise ConfigError(f"given={folder}: there is nothing to complete in {spec.modality}, only in images")
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


def _read_prompt(prompt: str, trained: TrainedRun) -> Tensor:
    try:
        if trained.spec.modality == "rolls":
            return roll_of_score(quantise(read_score(prompt), 1))
        return trained.model.read_prompt(prompt)
    except ValueError as error:
        raise ConfigError(f"prompt={prompt!r}: {error}") from error
