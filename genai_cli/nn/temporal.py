"""The temporal convolutional network (Bai et al. 2018, arXiv:1803.01271): dilated causal convolutions over time."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class TemporalBlock(nn.Module):
    """Two causal convolutions, each with weight normalisation, ReLU and dropout, and a way past them (Figure 1b)."""

    def __init__(self, into: int, width: int, *, kernel: int, dilation: int, dropout: float):
        super().__init__()
        self.reach, self.dropout = (kernel - 1) * dilation, dropout
        self.first = weight_norm(nn.Conv1d(into, width, kernel, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(width, width, kernel, dilation=dilation))
        self.past = nn.Conv1d(into, width, 1) if into != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', T): at t a function of x up to t."""
        y = x
        for convolution in (self.first, self.second):
            y = F.dropout(F.relu(convolution(F.pad(y, (self.reach, 0)))), self.dropout, self.training)
        return F.relu(y + self.past(x))


class TemporalConvNet(nn.Module):
    """`depth` blocks whose dilation doubles from one to the next."""

    def __init__(self, into: int, width: int, *, depth: int, kernel: int, dropout: float):
        super().__init__()
        self.blocks = nn.Sequential(
            *[
                TemporalBlock(width if i else into, width, kernel=kernel, dilation=2**i, dropout=dropout)
                for i in range(depth)
            ]
        )
        self.reach = 2 * (kernel - 1) * (2**depth - 1)  # places before t that the output at t knows

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C')."""
        return self.blocks(x.transpose(1, 2)).transpose(1, 2)
