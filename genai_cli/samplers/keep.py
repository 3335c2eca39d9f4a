"""Which part of given images stays, where a model completes them: `genai sample given=FOLDER keep=top_half`."""

from typing import Literal

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom

Keep = Literal["top_half", "bottom_half", "left_half", "right_half", "border"]


def kept_pixels(keep: str, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(H, W) bool, true where the given image stays; `border` leaves the middle half of both sides to be drawn."""
    kept = torch.zeros(height, width, dtype=torch.bool, device=device)
    match keep:
        case "top_half":
            kept[: height // 2] = True
        case "bottom_half":
            kept[height // 2 :] = True
        case "left_half":
            kept[:, : width // 2] = True
        case "right_half":
            kept[:, width // 2 :] = True
        case "border":
            kept[:] = True
            kept[height // 4 : height - height // 4, width // 4 : width - width // 4] = False
        case _:
            raise ValueError(f"keep={keep} is none of top_half, bottom_half, left_half, right_half, border")
    return kept


def given_rows(given: Tensor, random: RowRandom) -> Tensor:
    """The given image of each sample, (B, C, H, W): sample i begins with image i mod N of `given` (N, C, H, W)."""
    index = torch.tensor([i % len(given) for i in random.index], device=given.device)
    return given[index].to(random.device)
