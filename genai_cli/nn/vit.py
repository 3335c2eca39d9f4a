"""A transformer on patches of images, in which every token attends to every other (Dosovitskiy et al. 2021,
arXiv:2010.11929)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.transformer import FeedForward


class Encoder(nn.Module):
    """`depth` pre-norm blocks and a last norm, (B, T, width) to (B, T, width)."""

    def __init__(self, *, width: int, depth: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))  # (B, T, 3, N, D)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # each (B, N, T, D)
        mixed = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.feed_forward(self.feed_forward_norm(x))


def to_patches(image: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) to (B, T, C patch^2), T = H W / patch^2, in the order of a page."""
    return F.pixel_unshuffle(image, patch).flatten(2).transpose(1, 2)


def from_patches(patches: Tensor, patch: int, height: int) -> Tensor:
    """(B, T, C patch^2) to (B, C, H, W), H = `height`."""
    return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (height // patch, -1)), patch)


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, T, C) and (B, K) to (B, K, C): of each row its own tokens."""
    return tokens.gather(1, places.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def put(tokens: Tensor, places: Tensor, into: Tensor) -> Tensor:
    """(B, K, C) tokens at `places` (B, K) of a copy of `into` (B, T, C)."""
    return torch.scatter(into, 1, places.unsqueeze(2).expand(-1, -1, tokens.shape[2]), tokens)
