"""What all models of the diffusion family train: a network that is told the time, and the class where it is asked to.

`Denoiser` chooses the backbone by the kind of data and makes the condition that it sees. The class "none" stands for
examples whose label was dropped in training, which classifier-free guidance needs (Ho & Salimans 2022,
arXiv:2207.12598).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genai_cli.data.base import Batch, Spec
from genai_cli.nn.denoiser_mlp import DenoiserMLP
from genai_cli.nn.dit import DiT
from genai_cli.nn.embeddings import TimeEmbedding
from genai_cli.nn.unet import UNet

Backbone = Literal["unet", "dit", "mlp"]
NUM_HEADS = 4
PATCHES = {"image": 2, "latents": 1}  # pixels a side that are one position; maps of latents are small already


class Denoiser(nn.Module):
    """Data (B, *shape), times (B,) and labels (B,) to (B, *shape) in float32. Zero before training.

    `backbone` is by default a U-Net for images and maps of latents, an MLP for points, series and vectors. The sizes
    are those of the U-Net; a transformer or an MLP is as wide as its lowest level, and has as many blocks, 2 depth
    levels. `heads` and `patch` are of images and maps alone: by default 4, and those of PATCHES.
    Times are numbers of the order of 1000, as positions are, or less; `num_times` of them are told, one by default.
    Raises ValueError where data and options do not fit.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        backbone: Backbone | None,
        width: int,
        levels: int,
        depth: int,
        heads: int | None,
        patch: int | None,
        dropout: float,
        condition: Literal["label"] | None,
        label_dropout: float,
        num_times: int = 1,
    ):
        super().__init__()
        if condition == "label" and not spec.classes:
            raise ValueError(
                "model.condition=label needs data with labels, which these have not: use model.condition=null"
            )
        self.num_classes = len(spec.classes) if condition == "label" else 0
        self.label_dropout = label_dropout
        widest = width * 2 ** (levels - 1)
        self.times = nn.ModuleList(TimeEmbedding(width, widest) for _ in range(num_times))
        self.labels = nn.Embedding(self.num_classes + 1, widest) if self.num_classes else None
        self.backbone = build_backbone(
            spec, backbone, condition_dim=widest,
            width=width, levels=levels, depth=depth, heads=heads, patch=patch, dropout=dropout,
        )  # fmt: skip

    def forward(self, x: Tensor, *times: Tensor, label: Tensor | None = None) -> Tensor:
        condition = sum(embed(t) for embed, t in zip(self.times, times, strict=True))  # (B, E)
        if self.labels is not None:
            assert label is not None, "a conditional network is told the class, or that there is none"
            condition = condition + self.labels(label)
        return self.backbone(x, F.silu(condition)).float()

    def shard_units(self) -> list[nn.Module]:
        """Of a model whose losses call this network and no other: the blocks of the backbone, then all of it."""
        lists = [module for module in self.backbone.modules() if isinstance(module, nn.ModuleList)]
        return [*(block for blocks in lists for block in blocks), self]

    def label_of(self, batch: Batch) -> Tensor | None:
        """(B,) the classes of a batch, in training some of them replaced by "none"; None without a condition."""
        if not self.num_classes:
            return None
        label = batch["label"]
        if not self.training or self.label_dropout == 0:
            return label
        return torch.where(batch.random.uniform() < self.label_dropout, self.num_classes, label)

    def no_label(self, label: Tensor) -> Tensor:
        """The class "none" for every row of `label`."""
        return torch.full_like(label, self.num_classes)


def build_backbone(
    spec: Spec, backbone: Backbone | None, *, condition_dim: int, width: int, levels: int, depth: int,
    heads: int | None, patch: int | None, dropout: float,
) -> nn.Module:  # fmt: skip
    """A network (x, condition) -> (B, *shape). Raises ValueError for one that cannot take such data or options."""
    fitting = ("unet", "dit") if len(spec.shape) == 3 else ("mlp",)
    backbone = backbone or fitting[0]
    if backbone not in fitting:
        raise ValueError(f"model.backbone={backbone} cannot take {spec.modality}: use model.backbone={fitting[0]}")
    widest, blocks = width * 2 ** (levels - 1), 2 * depth * levels
    if backbone == "mlp":
        for key, value in (("heads", heads), ("patch", patch)):
            if value is not None:
                kind = "vectors" if spec.modality == "latents" else spec.modality
                raise ValueError(
                    f"model.{key}={value} is of images and maps, and these are {kind}, which go through an MLP: "
                    f"leave it out, or give model.{key}=null"
                )
        return DenoiserMLP(
            math.prod(spec.shape), condition_dim=condition_dim, width=widest, depth=blocks, dropout=dropout
        )
    heads = NUM_HEADS if heads is None else heads  # 0 is none
    patch = patch or PATCHES[spec.modality]
    if backbone == "dit":
        return DiT(
            spec.shape, condition_dim=condition_dim, width=widest, depth=blocks, heads=heads, patch=patch,
            dropout=dropout,
        )  # fmt: skip
    return UNet(
        spec.shape, condition_dim=condition_dim, width=width, levels=levels, depth=depth, heads=heads, patch=patch,
        dropout=dropout,
    )  # fmt: skip
