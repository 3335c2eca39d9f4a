"""Diffusion transformer (Peebles & Xie 2022, arXiv:2212.09748): patches as tokens, the condition in the norms.

Every block is scaled, shifted and gated by the condition (adaLN-Zero, Sec. 3.2), and every gate begins at zero, so
that the network begins as the identity on its tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genai_cli.nn.embeddings import sinusoidal_embedding


class DiT(nn.Module):
    """Images (B, C, H, W) and conditions (B, E) to (B, C, H, W). Zero before training.

    `depth` blocks of `width` features and `heads` of attention, on tokens of `patch` x `patch` pixels.
    Raises ValueError where patches do not tile the image, heads not the width, or positions have no even share of it.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        condition_dim: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        _check(shape, width=width, heads=heads, patch=patch)
        channels, height, width_of_image = shape
        self.patch, self.rows = patch, height // patch
        token_dim = channels * patch**2
        self.stem = nn.Linear(token_dim, width)
        positions = grid_embedding(self.rows, width_of_image // patch, width)  # (T, width)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(Block(width, condition_dim, heads, dropout) for _ in range(depth))
        self.norm = ConditionedNorm(width, condition_dim)
        self.head = nn.Linear(width, token_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        tokens = F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)  # (B, T, C P^2)
        h = self.stem(tokens) + self.positions  # (B, T, width)
        for block in self.blocks:
            h = block(h, condition)
        h = self.head(self.norm(h, condition)).transpose(1, 2).unflatten(2, (self.rows, -1))  # (B, C P^2, H/P, W/P)
        return F.pixel_shuffle(h, self.patch)


class Block(nn.Module):
    """Attention and a feed-forward layer on conditioned tokens, behind gates; the identity before training."""

    def __init__(self, width: int, condition_dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1 = ConditionedNorm(width, condition_dim)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = ConditionedNorm(width, condition_dim)
        self.expand = nn.Linear(width, 4 * width)
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(4 * width, width)
        self.gates = nn.Linear(condition_dim, 2 * width)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gate1, gate2 = self.gates(condition)[:, None].chunk(2, dim=2)  # each (B, 1, width)
        x = x + gate1 * self.attend(self.norm1(x, condition))
        h = F.gelu(self.expand(self.norm2(x, condition)), approximate="tanh")
        return x + gate2 * self.contract(self.dropout(h))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, N, T, D)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ConditionedNorm(nn.Module):
    """Layer normalisation whose scale and shift are linear in the condition; plain before training."""

    def __init__(self, width: int, condition_dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(condition_dim, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, T, width) and (B, E) to (B, T, width)."""
        scale, shift = self.modulation(condition)[:, None].chunk(2, dim=2)  # each (B, 1, width)
        return self.norm(x) * (1 + scale) + shift


def grid_embedding(rows: int, columns: int, width: int) -> Tensor:
    """(rows * columns, width): half of the features are sinusoids of the row, half of the column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([sinusoidal_embedding(place.flatten(), width // 2) for place in (row, column)], dim=1)


def _check(shape: tuple[int, int, int], *, width: int, heads: int, patch: int) -> None:
    _, height, width_of_image = shape
    if height % patch or width_of_image % patch:
        raise ValueError(f"patch={patch} must divide the sides of the images, {height}x{width_of_image}")
    if width % 4 or width % heads:
        raise ValueError(f"a transformer of {width} features must be divisible by 4 and by heads={heads}")
