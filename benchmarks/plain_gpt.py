"""A GPT and its training loop as one writes them in an afternoon: torch and nothing else, as nanoGPT is."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ours import count_parameters
from benchmarks.turns import Turns


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.into, self.back = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norms[0](x)).chunk(3, 2)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.back(F.gelu(self.into(self.norms[1](x))))


class PlainGPT(nn.Module):
    def __init__(self, vocabulary: int, context: int, *, width: int = 128, depth: int = 4, heads: int = 4):
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.embedding.weight)


def train(turns: Turns, *, text: Tensor, vocabulary: int, context: int, batch_size: int) -> None:
    """Until the turns end: random windows of `text` (N,), AdamW, gradients clipped."""
    model = PlainGPT(vocabulary, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    turns.ready(parameters=count_parameters(model))
    while True:
        starts = torch.randint(len(text) - context, (batch_size, 1))
        rows = text[starts + torch.arange(context + 1)]
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        turns.step_done()
