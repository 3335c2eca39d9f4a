"""A transformer whose every token sees every other: what fills in masked tokens (as BERT, Devlin et al. 2018).

Pre-norm, rotary positions, queries and keys normalised per head, as the causal one of `transformer.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.rotary import Rotary, Rotation, rotate


class BidirectionalTransformer(nn.Module):
    """(B, T, C) to (B, T, C), T <= `context`: `depth` blocks and a last norm."""

    def __init__(self, *, context: int, width: int, depth: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.rotary = Rotary(width // heads, context)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        rotation = self.rotary(0, x.shape[1])
        for block in self.blocks:
            x = block(x, rotation)
        return self.norm(x)

    @torch.no_grad()
    def _initialise(self) -> None:
        """N(0, 1 / fan_in); where a weight writes into the residual stream, smaller by sqrt(2 * depth), as in GPT-2."""
        for block in self.blocks:
            for layer in (block.qkv, block.expand):
                layer.weight.normal_(std=layer.in_features**-0.5)
            for layer in (block.out, block.contract):
                layer.weight.normal_(std=(2 * len(self.blocks) * layer.in_features) ** -0.5)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        x = x + self.dropout(self.attend(self.norm1(x), rotation))
        return x + self.dropout(self.contract(F.gelu(self.expand(self.norm2(x)))))

    def attend(self, x: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).unbind(2)  # each (B, T, N, D)
        q, k = (rotate(F.layer_norm(y, y.shape[-1:]), rotation) for y in (q, k))
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.out(mixed.transpose(1, 2).flatten(2))
