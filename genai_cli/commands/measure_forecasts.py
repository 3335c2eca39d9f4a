"""How well a model of series goes on from held-out ones: the first half of each is given, the second drawn."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from genai_cli.commands.sampling import sampling_options
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Split
from genai_cli.engine.progress import Progress
from genai_cli.engine.sampling import draw
from genai_cli.errors import ConfigError
from genai_cli.metrics.bootstrap import REPLICATES, mean_interval
from genai_cli.metrics.forecasts import crps, median_error
from genai_cli.metrics.record import Metric
from genai_cli.nn.random import mix
from genai_cli.runs import TrainedRun

DRAWS = 20  # of each window
_SAMPLES = 28  # use of the seed


def measure_forecasts(
    trained: TrainedRun, split: Split, config: EvaluateConfig, protocol: dict[str, Any], notes: list[str],
    device: torch.device,
) -> Iterator[Metric]:  # fmt: skip
    """Beside each figure those of forecasts that anyone can make: the last value, the given half again, and the draws
    for another window."""
    length = trained.spec.shape[0]
    if "given" not in inspect.signature(trained.model.sample).parameters:
        notes.append(f"forecast: model={trained.config.model['name']} goes on from nothing; a wavenet or edm does")
        return
    own = [key for key in ("given", "keep", "length", "strength") if key in config.sampling]
    if own or length < 2:
        notes.append(f"forecast: the first half of held-out windows is given, so not with {', '.join(own) or length}")
        return
    count = min(max(config.num_samples // DRAWS, 2), len(split))
    windows = split.fetch(torch.arange(count) * len(split) // count)[trained.spec.key].cpu()  # (N, T, C)
    drawn = _draw(trained, windows, config, device)  # (S, N, T, C)
    half = length // 2
    given, truth, drawn = windows[:, :half], windows[:, half:], drawn[:, :, half:]
    again = given[:, torch.arange(length - half) % half]
    described = {
        **protocol, "kind": "sample", "n_fake": count * DRAWS, "n_real": count,
        "bootstrap": f"windows, {REPLICATES} times",
        "context": f"the first {half} of {length} steps of windows evenly spread over the split, {DRAWS} draws of each",
    }  # fmt: skip
    unit = "standard deviations" if trained.spec.scale else "the data's own units"
    for name, score, words in (
        ("forecast_crps", crps, "continuous ranked probability score"),
        ("forecast_error", median_error, "absolute error of the median"),
    ):
        value = score(drawn, truth).mean((1, 2))  # (N,)
        controls = {
            "last_value": (given[:, -1:] - truth).abs().mean().item(),
            "given_again": (again - truth).abs().mean().item(),
            "other_window": score(drawn.roll(max(count // 2, 1), dims=1), truth).mean().item(),
        }
        interval = mean_interval(value, seed=config.seed)
        about = {**described, "id": f"forecast/{name.removeprefix('forecast_')}"}
        yield Metric(name, value.mean().item(), interval, f"{words}, {unit}", "lower", about, controls)


def _draw(trained: TrainedRun, windows: Tensor, config: EvaluateConfig, device: torch.device) -> Tensor:
    """(DRAWS, N, T, C): sample i goes on from window i mod N."""
    options = {**sampling_options(config.sampling, trained), "given": windows, "keep": "first_half"}
    progress = Progress(first=0, total=DRAWS * len(windows), unit="samples")
    try:
        samples = draw(
            trained.model, DRAWS * len(windows), seed=mix(config.seed, _SAMPLES), batch_size=config.batch_size,
            device=device, options=options, report=progress.advance,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"model={trained.config.model['name']} cannot sample so: {error}") from error
    finally:
        progress.close()
    return samples.unflatten(0, (DRAWS, len(windows)))
