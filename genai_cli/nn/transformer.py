"""The transformer (Vaswani et al. 2017; pre-norm as in GPT-2): causal, with a static key-value cache, or seeing all.

Attention is fused (`scaled_dot_product_attention`); queries, keys and values come from one product.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.linear import FastLinear, add_linear, fast_linear
from genai_cli.nn.rotary import Rotary, Rotation, rotate

Activation = Literal["gelu", "relu2", "swiglu"]
Positions = Literal["rotary", "learned"]


class KeyValueCache:
    """Keys and values of the tokens that one attention layer has seen, in buffers allocated once for `capacity`."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.length = 0  # tokens held
        self.weights: tuple[Tensor, ...] | None = None  # of the block that it belongs to, see `Block.step`
        self._keys: Tensor | None = None  # (B, capacity, N, D)
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, T, N, D) keys and values; return all that are held, each (B, length, N, D)."""
        start, stop = self.length, self.length + keys.shape[1]
        all_keys, all_values = self._buffers(keys, stop)
        all_keys[:, start:stop] = keys
        all_values[:, start:stop] = values
        self.length = stop
        return all_keys[:, :stop], all_values[:, :stop]

    def append_token(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """`append` of one token, (B, N, D); what is held comes by head, each (B, N, length, D)."""
        place, stop = self.length, self.length + 1
        all_keys, all_values = self._buffers(keys, stop)
        all_keys.select(1, place).copy_(keys)
        all_values.select(1, place).copy_(values)
        self.length = stop
        return all_keys.narrow(1, 0, stop).transpose(1, 2), all_values.narrow(1, 0, stop).transpose(1, 2)

    def _buffers(self, keys: Tensor, needed: int) -> tuple[Tensor, Tensor]:
        """Those of the sequences of `keys` (B, ..., N, D), with room for `needed` tokens."""
        assert needed <= self.capacity, f"{needed} tokens in a cache for {self.capacity}"
        if self._keys is None or self._values is None or len(self._keys) != len(keys):
            assert self.length == 0, f"{len(keys)} sequences after a cache was begun with another number"
            shape = (len(keys), self.capacity, *keys.shape[-2:])
            self._keys, self._values = keys.new_empty(shape), keys.new_empty(shape)
        return self._keys, self._values

    def select(self, rows: Tensor) -> None:
        """Hold the sequences `rows` (B',) in place of all."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys[rows], self._values[rows]

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

    def step(self, x: Tensor, rotation: Rotation | None, cache: KeyValueCache) -> Tensor:
        """`forward` of the next token of each row, (B, C) -> (B, C), when nothing is dropped out.

        The same arithmetic without modules in between: of one token, calling them takes longer than computing. For
        that reason, too, the cache keeps the weights that the first step has looked up: they must not change while it
        is in use.
        """
        attention = self.attention
        num_queries, num_keys, head_dim = attention.heads, attention.kv_heads, attention.head_dim
        if cache.weights is None:
            cache.weights = self.weights()
        attention_norm, qkv_weight, mix_weight, feed_forward_norm, into_weight, out_weight = cache.weights
        normed = torch.layer_norm(x, x.shape[1:], attention_norm)
        qkv = fast_linear(normed, qkv_weight).view(len(x), -1, head_dim)
        qk, values = qkv.split_with_sizes((num_queries + num_keys, num_keys), 1)
        qk = torch.layer_norm(qk, (head_dim,))
        if rotation is not None:
            qk = rotate(qk, rotation)
        queries, keys = qk.split_with_sizes((num_queries, num_keys), 1)  # (B, N, D)
        keys, values = cache.append_token(keys, values)  # (B, N, T, D)
        mixed = F.scaled_dot_product_attention(queries.unsqueeze(2), keys, values, enable_gqa=num_keys < num_queries)
        x = add_linear(x, mixed.view_as(x), mix_weight)
        normed = torch.layer_norm(x, x.shape[1:], feed_forward_norm)
        hidden = self.feed_forward.activate(fast_linear(normed, into_weight))
        return add_linear(x, hidden, out_weight)

    def weights(self) -> tuple[Tensor, ...]:
        """In the order in which a token meets them."""
        attention, feed_forward = self.attention, self.feed_forward
        return (
            self.attention_norm.weight, attention.qkv.weight, attention.out.weight,
            self.feed_forward_norm.weight, feed_forward.into.weight, feed_forward.out.weight,
        )  # fmt: skip


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
        if caches and x.shape[1] == 1 and not self.training and not torch.is_autocast_enabled(x.device.type):
            return self._step(x[:, 0], caches)[:, None]
        start = caches[0].length if caches else 0
        stop = start + x.shape[1]
        if self.position is not None:
            x = x + self.position.weight[start:stop]
        x = drop(x, self.dropout, self.training)
        rotation = self.rotary(start, stop) if self.rotary is not None else None
        for index, block in enumerate(self.blocks):
            x = block(x, rotation, caches[index] if caches else None)
        return self.norm(x)

    def _step(self, x: Tensor, caches: list[KeyValueCache]) -> Tensor:
        """`forward` of one token that follows those of the caches, (B, C) -> (B, C)."""
        place = caches[0].length
        if self.position is not None:
            x = x + self.position.weight[place]
        rotation = self.rotary.forward(place, place + 1) if self.rotary is not None else None
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block.step(x, rotation, cache)
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
