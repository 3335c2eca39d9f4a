"""Encoders and decoders between an example and one vector: perceptrons, or convolutions for images.

Both ends are flat, (B, D) data and (B, latent_dim) codes, so that a model need not know which of the two it has.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from genai_cli.data.base import Spec
from genai_cli.nn.conv import doubling, halving
from genai_cli.nn.mlp import mlp

Backbone = Literal["auto", "mlp", "conv"]  # auto: conv for images, mlp for all else
Activation = Callable[[], nn.Module]
SMALLEST_SIDE = 7  # of maps that are halved no further: 28 ends at 7, 32 at 4


def build_encoder(
    spec: Spec, outputs: int, *, backbone: Backbone, width: int, depth: int = 1, activation: Activation = nn.ReLU
) -> nn.Sequential:
    """(B, D) to (B, outputs).

    `mlp`: `depth` hidden layers of `width`. `conv`: halvings to `width` channels, then twice, four times as many, until
    a side would be odd or below 4, with `depth - 1` convolutions after each, and a linear layer.
    Raises ValueError if convolutions are asked for data that are no images.
    """
    if resolve_backbone(backbone, spec) == "mlp":
        return mlp([math.prod(spec.shape), *[width] * depth, outputs], activation)
    channels, height, width_of_maps = _image_shape(spec)
    layers: list[nn.Module] = [nn.Unflatten(1, spec.shape), ChannelsLast()]
    for stage_channels in _channels(spec, width):
        layers += [halving(channels, stage_channels), activation()]
        layers += _convolutions(stage_channels, depth - 1, activation)
        channels, height, width_of_maps = stage_channels, height // 2, width_of_maps // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width_of_maps, outputs))


def build_decoder(
    spec: Spec, inputs: int, outputs: int, *, backbone: Backbone, width: int, depth: int = 1,
    activation: Activation = nn.ReLU,
) -> nn.Sequential:  # fmt: skip
    """(B, inputs) to (B, outputs): the encoder backwards. With `conv`, `outputs` is a multiple of the pixels."""
    if resolve_backbone(backbone, spec) == "mlp":
        return mlp([inputs, *[width] * depth, outputs], activation)
    _, height, width_of_maps = _image_shape(spec)
    channels = _channels(spec, width)[::-1]
    if not channels:
        raise ValueError(f"model.backbone=conv needs sides that are even, not {height}x{width_of_maps}: use mlp")
    factor = 2 ** len(channels)
    maps = (channels[0], height // factor, width_of_maps // factor)
    layers: list[nn.Module] = [nn.Linear(inputs, math.prod(maps)), nn.Unflatten(1, maps), ChannelsLast(), activation()]
    for stage, stage_channels in enumerate(channels):
        layers += _convolutions(stage_channels, depth - 1, activation)
        if stage + 1 < len(channels):
            layers += [doubling(stage_channels, channels[stage + 1]), activation()]
    return nn.Sequential(*layers, doubling(channels[-1], outputs // (height * width_of_maps)), nn.Flatten())


def resolve_backbone(backbone: Backbone, spec: Spec) -> Literal["mlp", "conv"]:
    """What `auto` stands for: convolutions where there are pixels."""
    if backbone != "auto":
        return backbone
    return "conv" if len(spec.shape) == 3 else "mlp"


class ChannelsLast(nn.Module):
    """Lays maps out channels-last in memory, which convolutions on a CPU prefer."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


def _convolutions(channels: int, count: int, activation: Activation) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), activation()]
    return layers


def _image_shape(spec: Spec) -> tuple[int, int, int]:
    if len(spec.shape) != 3:
        raise ValueError(f"model.backbone=conv needs images, and {spec.modality} are none: use model.backbone=mlp")
    return spec.shape


def _channels(spec: Spec, width: int) -> list[int]:
    """Of the maps after each halving."""
    _, height, width_of_maps = _image_shape(spec)
    channels: list[int] = []
    while height % 2 == width_of_maps % 2 == 0 and min(height, width_of_maps) > SMALLEST_SIDE:
        channels.append(width * 2 ** len(channels))
        height, width_of_maps = height // 2, width_of_maps // 2
    return channels
