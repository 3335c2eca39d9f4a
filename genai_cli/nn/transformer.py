"""The transformer (Vaswani et al. 2017; pre-norm as in GPT-2): causal, with a static key-value cache, or seeing all.

Attention is fused (`scaled_dot_product_attention`); queries, keys and values come from one product.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.linear import SMALLEST, FastLinear
from genai_cli.nn.rotary import Rotary, Rotation, rotate, rotate_into

Activation = Literal["gelu", "relu2", "swiglu"]
Positions = Literal["rotary", "learned"]


class KeyValueCache:
    """Keys and values of the tokens that one attention layer has seen, in a buffer allocated once for `capacity`."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.length = 0  # tokens held
        self.weights: BlockWeights | None = None  # of its block, looked up at the first step: they must not change
        self._held: Tensor | None = None  # (B, 2 N, capacity, D): keys, then values

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, T, N, D) keys and values; return all that are held, each (B, length, N, D)."""
        heads, start, stop = keys.shape[2], self.length, self.length + keys.shape[1]
        held = self._buffer(keys[:, 0], 2 * heads, stop)
        held[:, :heads, start:stop] = keys.transpose(1, 2)
        held[:, heads:, start:stop] = values.transpose(1, 2)
        self.length = stop
        return held[:, :heads, :stop].transpose(1, 2), held[:, heads:, :stop].transpose(1, 2)

    def append_token(self, keys_values: Tensor) -> tuple[Tensor, ...]:
        """`append` of one token, (B, 2 N, D): keys, then values; what is held comes by head, each (B, N, length, D)."""
        place, heads = self.length, keys_values.shape[1]
        held = self._buffer(keys_values, heads, place + 1)
        held.select(2, place).copy_(keys_values)
        self.length = place + 1
        return held.narrow(2, 0, place + 1).split_with_sizes((heads // 2, heads // 2), 1)

    def _buffer(self, token: Tensor, heads: int, needed: int) -> Tensor:
        """That of the sequences of `token` (B, ..., D), with room for `needed` tokens."""
        assert needed <= self.capacity, f"{needed} tokens in a cache for {self.capacity}"
        batch, held = token.shape[0], self._held
        if held is None or held.shape[0] != batch:
            assert self.length == 0, f"{batch} sequences after a cache was begun with another number"
            held = self._held = token.new_empty(batch, heads, self.capacity, token.shape[-1])
        return held

    def select(self, rows: Tensor) -> None:
        """Hold the sequences `rows` (B',) in place of all."""
        if self._held is not None:
            self._held = self._held[rows]

    def clear(self) -> None:
        """Forget the tokens, keep the buffers."""
        self.length = 0


class SelfAttention(nn.Module):
    """Attention of each token to itself and those before it; if not `is_causal`, to those after it, too.

    `kv_heads` < `heads` shares each key and value head among several query heads (Ainslie et al. 2023, GQA).
    Queries and keys are normalised per head, which keeps the logits bounded (Dehghani et al. 2023, section 2).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        dropout: float = 0.0,
        is_causal: bool = True,
    ):
        super().__init__()
        self.is_causal = is_causal
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.head_dim = width // heads
        self.dropout = dropout
        self.qkv = FastLinear(width, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = FastLinear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C). With a cache, `x` follow those it holds: one, or any number if none."""
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_dim))  # (B, T, N + 2 * N_kv, D)
        qk = F.layer_norm(qkv.narrow(2, 0, self.heads + self.kv_heads), (self.head_dim,))
        if rotation is not None:
            qk = rotate(qk, rotation)
        queries, keys = qk.narrow(2, 0, self.heads), qk.narrow(2, self.heads, self.kv_heads)
        values = qkv.narrow(2, self.heads + self.kv_heads, self.kv_heads)

        if cache is not None:
            assert cache.length == 0 or x.shape[1] == 1, "tokens are added to a cache at once when empty, then singly"
            keys, values = cache.append(keys, values)
        mixed = F.scaled_dot_product_attention(
            queries.transpose(1, 2),  # (B, N, T, D)
            keys.transpose(1, 2),
            values.transpose(1, 2),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.is_causal and x.shape[1] > 1,  # one token alone may look at everything
            enable_gqa=self.kv_heads < self.heads,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers on each token, 4 times as wide between them; SwiGLU (Shazeer 2020) has three, 8/3 times as wide."""

    def __init__(self, width: int, *, activation: Activation = "gelu"):
        super().__init__()
        self.activation = activation
        hidden = 4 * width if activation != "swiglu" else 8 * width // 3
        self.into = FastLinear(width, hidden if activation != "swiglu" else 2 * hidden, bias=False)
        self.out = FastLinear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.out(self.activate(self.into(x)))

    def activate(self, hidden: Tensor) -> Tensor:
        if self.activation == "gelu":
            return F.gelu(hidden, approximate="tanh")
        if self.activation == "relu2":
            return F.relu(hidden).square()  # So et al. 2021, Primer
        gate, value = hidden.chunk(2, -1)
        return F.silu(gate) * value


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        is_causal: bool = True,
    ):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = SelfAttention(width, heads, kv_heads=kv_heads, dropout=dropout, is_causal=is_causal)
        self.feed_forward_norm = nn.LayerNorm(width, bias=False)
        self.feed_forward = FeedForward(width, activation=activation)
        self.dropout = dropout

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + drop(self.attention(self.attention_norm(x), rotation, cache), self.dropout, self.training)
        return x + drop(self.feed_forward(self.feed_forward_norm(x)), self.dropout, self.training)

    def weights(self) -> "BlockWeights":
        attention, feed_forward = self.attention, self.feed_forward
        return BlockWeights(
            attention.heads, attention.kv_heads, attention.head_dim, feed_forward.activate,
            self.attention_norm.weight, attention.qkv.weight.t(), attention.out.weight.t(),
            self.feed_forward_norm.weight, feed_forward.into.weight.t(), feed_forward.out.weight.t(),
        )  # fmt: skip


class BlockWeights(NamedTuple):
    """What a token meets in a block, in that order; matrices are turned so that they stand on its right."""

    num_queries: int
    num_keys: int
    head_dim: int
    activate: Callable[[Tensor], Tensor]
    attention_norm: Tensor
    qkv: Tensor
    mix: Tensor
    feed_forward_norm: Tensor
    into: Tensor
    out: Tensor


def step_block(x: Tensor, rotation: Rotation | None, weights: BlockWeights, cache: KeyValueCache) -> Tensor:
    """`Block.forward` of the next token of each row, (B, C) -> (B, C), when nothing is dropped out or differentiated.

    The same arithmetic without modules in between, in as few operators and calls as there can be: of one token,
    calling them takes longer than computing.
    """
    num_queries, num_keys, head_dim, activate, attention_norm, qkv, mix, feed_forward_norm, into, out = weights
    size = x.shape
    normed = torch.layer_norm(x, size[1:], attention_norm)
    heads = torch.mm(normed, qkv).view(size[0], num_queries + 2 * num_keys, head_dim)
    qk = heads.narrow(1, 0, num_queries + num_keys)
    normed = torch.layer_norm(qk, (head_dim,))
    if rotation is None:
        qk.copy_(normed)
    else:
        rotate_into(qk, normed, rotation)
    queries, keys_values = heads.split_with_sizes((num_queries, 2 * num_keys), 1)
    keys, values = cache.append_token(keys_values)  # each (B, N, T, D)
    mixed = F.scaled_dot_product_attention(queries.unsqueeze(2), keys, values, enable_gqa=num_keys < num_queries)
    x = torch.addmm(x, mixed.view(size), mix)
    hidden = activate(torch.mm(torch.layer_norm(x, size[1:], feed_forward_norm), into))
    return torch.addmm(x, hidden, out)


class Transformer(nn.Module):
    """`depth` blocks and a last norm: each output depends on the inputs at and before its place.

    If not `is_causal`, on all of them: an encoder (Devlin et al. 2019), which takes no caches.
    """

    def __init__(
        self,
        *,
        context: int,
        width: int,
        depth: int,
        heads: int,
        kv_heads: int | None = None,
        activation: Activation = "gelu",
        positions: Positions = "rotary",
        dropout: float = 0.0,
        is_causal: bool = True,
    ):
        super().__init__()
        self.context = context
        self.dropout = dropout
        self.num_weights = 4 * width * width  # of the largest matrix of a block
        self.rotary = Rotary(width // heads, context) if positions == "rotary" else None
        self.position = nn.Embedding(context, width) if positions == "learned" else None
        self.blocks = nn.ModuleList(
            Block(width, heads, kv_heads=kv_heads, activation=activation, dropout=dropout, is_causal=is_causal)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, bias=False)
        self._initialise()

    def forward(self, x: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C), T <= context. With caches (`new_caches`), `x` follow the tokens that they hold."""
        if caches and x.shape[1] == 1 and self.can_step(x):
            return self.step(x[:, 0], caches)[:, None]
        start = caches[0].length if caches else 0
        stop = start + x.shape[1]
        if self.position is not None:
            x = x + self.position.weight[start:stop]
        x = drop(x, self.dropout, self.training)
        rotation = self.rotary(start, stop) if self.rotary is not None else None
        for index, block in enumerate(self.blocks):
            x = block(x, rotation, caches[index] if caches else None)
        return self.norm(x)

    def can_step(self, x: Tensor) -> bool:
        """Whether `step` takes the next token of the rows of `x` (B, ..., C): where its products are short."""
        is_plain = not self.training and not torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)
        return is_plain and x.shape[0] * self.num_weights < SMALLEST

    def step(self, x: Tensor, caches: list[KeyValueCache]) -> Tensor:
        """`forward` of one token that follows those of the caches, (B, C) -> (B, C); see `step_block`."""
        place = caches[0].length
        if self.position is not None:
            x = x + self.position.weight[place]
        rotation = self.rotary.forward(place, place + 1) if self.rotary is not None else None
        if caches[0].weights is None:
            for block, cache in zip(self.blocks, caches, strict=True):
                cache.weights = block.weights()
        for cache in caches:
            assert cache.weights is not None, "they are looked up for all blocks together"
            x = step_block(x, rotation, cache.weights, cache)
        return torch.layer_norm(x, x.shape[1:], self.norm.weight)

    def new_caches(self) -> list[KeyValueCache]:
        """An empty cache for each block."""
        return [KeyValueCache(self.context) for _ in self.blocks]

    @torch.no_grad()
    def _initialise(self) -> None:
        """N(0, 1 / fan_in); where a weight writes into the residual stream, smaller by sqrt(2 * depth), as in GPT-2."""
        for block in self.blocks:
            for layer in (block.attention.qkv, block.feed_forward.into):
                layer.weight.normal_(std=layer.in_features**-0.5)
            for layer in (block.attention.out, block.feed_forward.out):
                layer.weight.normal_(std=(2 * len(self.blocks) * layer.in_features) ** -0.5)
        if self.position is not None:
            self.position.weight.normal_(std=0.02)


def drop(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout that costs nothing where there is none."""
    return F.dropout(x, rate, training) if rate > 0 else x
