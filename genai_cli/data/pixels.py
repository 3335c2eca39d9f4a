"""Images as a split: uint8 in storage, scaled to [-1, 1] as they are fetched."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genai_cli.data.base import DataError, Spec, Split, SplitName, TensorSplit


def image_spec(channels: int, height: int, width: int, classes: Sequence[str] = ()) -> Spec:
    return Spec("image", (channels, height, width), value_range=(-1.0, 1.0), classes=tuple(classes))


def image_split(images: Tensor, labels: Tensor | None = None) -> TensorSplit:
    """`images` (N, C, H, W) uint8, `labels` (N,) any integer type."""
    tensors = {"image": images} if labels is None else {"image": images, "label": labels}
    return TensorSplit(tensors, decode_images)


def decode_images(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored rows to `image` (B, C, H, W) float32 in [-1, 1] and, where there are labels, `label` (B,) int64."""
    rows = {**rows, "image": rows["image"].to(torch.float32).div_(127.5).sub_(1)}
    if "label" in rows:
        rows["label"] = rows["label"].long()
    return rows


def training_range(split: SplitName, count: int, validation: int) -> tuple[int, int]:
    """Where a part of `count` training examples lies: the last `validation` of them are held out."""
    if validation >= count:
        raise DataError(f"dataset.validation={validation} leaves nothing of {count:,} images to train on")
    return (0, count - validation) if split == "train" else (count - validation, count)


class Mirrored(Split):
    """Every image and its mirror image: position i + N is image i flipped left to right.

    As an augmentation it is a function of the position alone, so nothing about it need be saved; an epoch is twice
    as long (as with the x-flips of Karras et al. 2020, "Training GANs with limited data").
    """

    def __init__(self, split: Split):
        self.split = split

    def __len__(self) -> int:
        return 2 * len(self.split)

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        rows = self.split.fetch(positions % len(self.split))
        images = rows["image"]  # (B, C, H, W)
        is_mirrored = (positions >= len(self.split)).view(-1, 1, 1, 1).to(images.device)
        return {**rows, "image": torch.where(is_mirrored, images.flip(-1), images)}

    def name_of(self, position: int) -> str:
        return self.split.name_of(position % len(self.split))

    def content_hash(self) -> str:
        import hashlib

        return hashlib.sha256(b"mirrored " + self.split.content_hash().encode()).hexdigest()

    def to(self, device: torch.device) -> "Mirrored":
        return Mirrored(self.split.to(device))

    @property
    def streams(self) -> bool:
        return self.split.streams
