"""A distance of images by what a classifier sees in them, where no pretrained network is at hand.

The classifier learns the labels of the data beside the model that is judged by it. Images are compared at every layer
as by Zhang et al. 2018 (arXiv:1801.03924, Eq. 1), without the weights that are fitted to human judgement there.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class ImageClassifier(nn.Module):
    """Images (B, C, H, W) to logits (B, K), through three layers of convolution, at the side, a half and a quarter."""

    def __init__(self, channels: int, num_classes: int, *, width: int):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            ]
        )
        self.head = nn.Linear(4 * width, num_classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """What each layer says: (B, D, h, w)."""
        maps = []
        for layer in self.layers:
            x = F.silu(layer(x))
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[-1].mean((2, 3)))

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """(B,): at each position the squared distance of features of length one; the mean over positions, the sum over
        layers. From 0 to 4 a layer."""
        pairs = zip(self.features(x), self.features(y), strict=True)
        return sum((F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2)) for a, b in pairs)
