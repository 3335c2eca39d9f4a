"""Which class each sample is of, for models that are conditioned on labels."""

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom


def sample_labels(random: RowRandom, num_classes: int, label: int | None = None) -> Tensor:
    """(random.size,) int64: `label` for all, or each class in turn: row i is of class i mod `num_classes`.

    Raises ValueError if there is no class `label`.
    """
    if label is None:
        return torch.tensor([i % num_classes for i in random.index], device=random.device)
    if label >= num_classes:
        raise ValueError(f"label={label} must be below {num_classes}, the number of classes")
    return torch.full((random.size,), label, device=random.device)
