"""Which part of given images and signals stays, where a model completes them.

`genai sample given=FOLDER keep=top_half` for images; for series and sound `given=FILE`, of which all stays, or
`keep=24`, its last 24 steps, or `keep=first_half`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.nn.random import RowRandom

HALVES = "first_half, last_half, border or a number of steps, such as keep=24"


def kept_pixels(keep: str | int, height: int, width: int, device: torch.device | None = None) -> Tensor:
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


def kept_steps(given: Tensor, keep: str | int | None) -> Tensor:
    """What stays of given signals (N, P, ...), NaN where nothing does: (N, P', ...), a number in its own place.

    All of it where `keep` is None; its last `keep` steps, which what is drawn then follows; its `first_half`, without
    the rest; its `last_half`; or all but the middle half (`border`). What is NaN in `given` is not known there either.
    """
    length = given.shape[1]
    if keep is None:
        return given
    if isinstance(keep, int):
        if keep > length:
            raise ValueError(f"keep={keep} is more than the {length} steps that are given")
        return given[:, length - keep :]
    place = torch.arange(length, device=given.device)
    match keep:
        case "first_half":
            if length < 2:
                raise ValueError("keep=first_half: one step has no half; leave keep out")
            return given[:, : length // 2]
        case "last_half":
            stays = place >= length // 2
        case "border":
            stays = (place < length // 4) | (place >= length - length // 4)
        case _:
            raise ValueError(f"keep={keep} is of images; of signals there is {HALVES}")
    return given.masked_fill(~stays.view(-1, *(1 for _ in given.shape[2:])), torch.nan)


def known_part(given: Tensor, keep: str | int | None, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of given images (B, C, H, W) or series (B, P, C) for samples of `shape`: these (B, *shape), and bool, where they
    stay: (H, W), or (B, T, C). A series shorter than a sample is its beginning.

    Raises ValueError where it is too long, or nothing is left to draw.
    """
    if len(shape) == 3:
        assert keep is not None, "images are kept in part"
        return given, kept_pixels(keep, *shape[-2:], device=given.device)
    stays = kept_steps(given, keep)
    missing = shape[0] - stays.shape[1]
    if missing < 0:
        raise ValueError(
            f"{stays.shape[1]} given steps are more than the {shape[0]} of a window: keep fewer, such as "
            f"keep={shape[0] // 2}"
        )
    stays = F.pad(stays, (0, 0, 0, missing), value=torch.nan)
    known = stays.isfinite()
    if known.flatten(1).all(1).any():
        raise ValueError(
            f"the given series fills the window of {shape[0]} steps, so nothing is left to draw: keep fewer of its "
            f"steps, such as keep={shape[0] // 2}, or leave cells empty where it shall be drawn"
        )
    return stays.nan_to_num(0.0), known


def given_rows(given: Tensor, random: RowRandom) -> Tensor:
    """What each sample is given, (B, ...): sample i begins with row i mod N of `given` (N, ...)."""
    index = torch.tensor([i % len(given) for i in random.index], device=given.device)
    return given[index].to(random.device)
