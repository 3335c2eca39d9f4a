"""`genai sample`: new examples from a trained run, written as its modality calls for, with one sheet to look at."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from genai_cli import runs, schema
from genai_cli.commands.given import given_part
from genai_cli.commands.measure_rules import sample_figures
from genai_cli.commands.sampling import asking_prompt, sampling_options
from genai_cli.commands.translate import compare_sides, held_out
from genai_cli.config import SampleConfig
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.engine.device import choose_device
from genai_cli.engine.progress import Progress
from genai_cli.engine.sampling import draw, with_given
from genai_cli.engine.storage import check_writable
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.media.files import write_samples
from genai_cli.nn.random import SampleRandom
from genai_cli.runs import TrainedRun

_LONGEST_NAME = 110  # characters; the rest, and prompts, are told apart by a hash
_SHOWN = 2000  # characters of a text sheet that the terminal repeats


def run(config: SampleConfig, *, folder: Path) -> ExitCode:
    """Draw `config.num_samples` examples from the run in `folder`."""
    device = choose_device(config.device)
    trained = runs.load_trained(
        folder, schema.read_run_config(folder), checkpoint=config.checkpoint, weights=config.weights, device=device,
        ema_length=config.ema_length,
    )  # fmt: skip
    options = sampling_options(config.options, trained)
    if config.condition:
        options["prompt"] = asking_prompt(config.condition, options, trained)
    if config.stream:
        _stream(config, trained, options, device)
        return ExitCode.DONE
    out = Path(config.out) if config.out else folder / "samples" / folder_name(config, trained.step)
    check_writable(out, f"out={out}")
    sources = held_out(trained, options, device)
    progress = Progress(first=0, total=config.num_samples, unit="samples")
    try:
        options = with_given(trained.model, options, sources, config.num_samples, seed=config.seed)
        samples = draw(
            trained.model, config.num_samples, seed=config.seed, batch_size=config.batch_size, device=device,
            options=options, report=progress.advance, num_stops=config.interpolate,
        )  # fmt: skip
        seen = torch.cat([trained.model.shown(part) for part in samples.split(config.batch_size)])
    except ValueError as error:
        raise ConfigError(f"model={trained.config.model['name']} cannot sample so: {error}") from error
    finally:
        progress.close()
    shown, spec = None, trained.model.shown_spec
    if trained.model.translates is not None:
        shown = compare_sides(config, trained, options, samples, sources, device)
        spec = trained.spec.side(trained.model.sides(**options)[1])
    given = given_part(options, samples) if spec.modality in ("series", "audio") else None
    sheet = write_samples(seen, spec, out, shown=shown, given=given)
    figures = sample_figures(samples, trained.spec, trained.config.dataset["name"])
    record = {
        "step": trained.step,
        "averaged_weights": trained.averaged,
        **dataclasses.asdict(config),
        "figures": figures,
    }
    (out / "sample.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _say_where(sheet, config.num_samples, trained)
    if figures:
        values = (
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
        )
        print("  figures  " + ", ".join(values))
    return ExitCode.DONE


def _stream(config: SampleConfig, trained: TrainedRun, options: dict[str, Any], device: torch.device) -> None:
    """Print sample number 0 while it is drawn; no file is written."""
    if trained.spec.modality not in ("text", "molecules") or config.num_samples != 1:
        raise ConfigError("stream=true prints one text as it is drawn: give num_samples=1, and a run of a text model")
    tokenizer = tokenizer_from_json(trained.spec.tokenizer or {})
    drawn: list[int] = []
    printed = ""
    try:
        for tokens in trained.model.stream(SampleRandom(config.seed, [0], device=device), **options):
            drawn += [token for token in tokens.tolist() if token >= 0]
            text = tokenizer.decode(torch.tensor(drawn, dtype=torch.int64)).rstrip("\ufffd")  # half a character waits
            print(text[len(printed) :], end="", flush=True)
            printed = text
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"model={trained.config.model['name']} cannot sample so: {error}") from error
    print()


def folder_name(config: SampleConfig, step: int) -> str:
    """A folder for these samples: the same request overwrites itself, another one does not."""
    given = {**config.options, **config.condition}
    texts = {key: given.pop(key) for key in ("prompt", "prompts") if key in given}
    options = "".join(f"-{key}={value}" for key, value in sorted(given.items()))
    options += f"-weights={config.weights}" if config.weights != "auto" else ""
    options += f"-interpolate={config.interpolate}" if config.interpolate else ""
    options += f"-ema_length={config.ema_length:g}" if config.ema_length else ""
    name = f"step-{step:08d}-seed-{config.seed}{options}".replace("/", "_")
    if not texts and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(json.dumps([name, texts], sort_keys=True).encode()).hexdigest()
    return f"{name[:_LONGEST_NAME]}-{digest[:8]}"


def _say_where(sheet: Path, num_samples: int, trained: TrainedRun) -> None:
    if sheet.suffix == ".txt":
        text = sheet.read_text(encoding="utf-8")
        print(text[:_SHOWN] + (" [...]" if len(text) > _SHOWN else ""))
    weights = "averaged weights" if trained.averaged else "weights"
    print(f"{num_samples} sample{'s' * (num_samples > 1)} from the {weights} of step {trained.step}")
    print(f"  look at  {sheet}")
    print(f"  files    {sheet.parent}")
