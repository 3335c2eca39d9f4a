"""Of models that translate: what they are given where the user gives nothing, and a sheet that shows both sides."""

from typing import Any

import torch
from torch import Tensor

from genai_cli import runs
from genai_cli.config import SampleConfig
from genai_cli.data.base import DataError, Split
from genai_cli.engine.sampling import source_positions
from genai_cli.nn.rows import side_by_side
from genai_cli.runs import TrainedRun


def held_out(trained: TrainedRun, options: dict[str, Any], device: torch.device) -> Split | None:
    """The test split of the run's data, if the model translates and `options` do not say what.

    Raises DataError, with the remedy, where the data are not at hand.
    """
    if trained.model.translates is None or options.get("given") is not None:
        return None
    try:
        return runs.build_dataset(trained.config).load("test").to(device)
    except DataError as error:
        raise DataError(f"{error} (or say what to translate: given=FOLDER)") from error


@torch.no_grad()
def compare_sides(
    config: SampleConfig, trained: TrainedRun, options: dict[str, Any], samples: Tensor, sources: Split | None,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """(B', C, H, W): what was given beside what was made of it, and beside the truth where that is known."""
    shown = samples[: config.batch_size].to(device)
    rows = torch.arange(len(shown))
    others = {key: value for key, value in options.items() if key != "given"}
    given = options["given"]
    columns = trained.model.columns(given[rows.to(given.device) % len(given)].to(device), shown, **others)
    if sources is not None and trained.spec.is_paired:
        _, made = trained.model.sides(**options)
        positions = source_positions(len(sources), config.num_samples, seed=config.seed)
        columns.append(sources.fetch(positions[rows % len(positions)])[made].to(device))
    return side_by_side(*columns).cpu()
