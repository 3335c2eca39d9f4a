"""From the options of samples as they were typed to the arguments of the model's `sample`."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.commands.given import read_given
from genai_cli.data.music_tokens import read_score
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.errors import ConfigError
from genai_cli.media.midi import quantise
from genai_cli.media.rolls import roll_of_score
from genai_cli.models.base import GenerativeModel
from genai_cli.runs import TrainedRun, load_another

_NOTES = 4  # about given files, that are told


def sampling_options(typed: dict[str, Any], trained: TrainedRun) -> dict[str, Any]:
    """The keyword arguments of the model's `sample`: as typed, prompts as tokens, given images and signals as numbers.

    Says on the terminal what of a given file is not read as it is.
    """
    options = dict(typed)
    if trained.spec.tokenizer is not None or trained.spec.modality == "rolls":
        if isinstance(options.get("prompt"), str):
            options["prompt"] = _read_prompt(options["prompt"], trained)
        if isinstance(options.get("prompts"), list):
            options["prompts"] = [_read_prompt(prompt, trained) for prompt in options["prompts"]]
    if isinstance(options.get("given"), str):
        side, _ = trained.model.sides(**options)
        spec = trained.spec if trained.model.translates is None else trained.spec.side(side)
        options["given"], notes = read_given(
            Path(options["given"]), spec, keep=options.get("keep"), header=trained.config.dataset.get("header")
        )
        more = [f"and {len(notes) - _NOTES} more like these"] if len(notes) > _NOTES else []
        for note in notes[:_NOTES] + more:
            print(f"given: {note}", flush=True)
    if isinstance(options.get("guide"), str):
        device = next(trained.model.parameters()).device
        options["guide"] = load_another("guide", options["guide"], trained.spec, device).model
    if "keep" in options and "given" not in options:
        raise ConfigError(f"keep={options['keep']} says what of given data stays: say which, given=FOLDER or FILE")
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


def _read_prompt(prompt: str, trained: TrainedRun) -> Tensor:
    try:
        if trained.spec.modality == "rolls":
            return roll_of_score(quantise(read_score(prompt), 1))
        return trained.model.read_prompt(prompt)
    except ValueError as error:
        raise ConfigError(f"prompt={prompt!r}: {error}") from error
