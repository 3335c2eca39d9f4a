"""The encoder-decoder transformer (Vaswani et al. 2017) with the relative positions of T5 (Raffel et al. 2020).

Both halves look at the same row of tokens, which is cut in two: the encoder sees what is before the cut, both ways; the
decoder goes on from the last token before it, one after the other, and looks at what the encoder made of the rest.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.linear import FastLinear
from genai_cli.nn.rotary import Rotary, Rotation, rotate
from genai_cli.nn.transformer import Activation, FeedForward, KeyValueCache, drop

KeysValues = tuple[Tensor, Tensor]  # each (B, T, N, D)


class RelativeBias(nn.Module):
    """A learned number for each head and distance between query and key (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one distance each, the others ever more of them, up to `max_distance` and beyond. Where
    keys may lie on both sides, each side has half of all buckets.
    """

    def __init__(self, heads: int, *, both_sides: bool, num_buckets: int = 32, max_distance: int = 128):
        super().__init__()
        self.both_sides, self.num_buckets, self.max_distance = both_sides, num_buckets, max_distance
        self.bias = nn.Embedding(num_buckets, heads)
        nn.init.normal_(self.bias.weight, std=0.02)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Places (T_q,) and (T_k,) to a bias of logits, (N, T_q, T_k)."""
        return self.bias(self.bucket(queries[:, None] - keys)).permute(2, 0, 1)

    def bucket(self, distance: Tensor) -> Tensor:
        """How far a key lies before its query, int64, to the number of a bucket."""
        count = self.num_buckets // 2 if self.both_sides else self.num_buckets
        side = torch.where(distance < 0, count, 0) if self.both_sides else 0
        distance = distance.abs() if self.both_sides else distance.clamp(min=0)
        exact = count // 2
        growth = (distance.clamp(min=1) / exact).log() / math.log(self.max_distance / exact)
        coarse = (exact + growth * (count - exact)).long().clamp(max=count - 1)
        return side + torch.where(distance < exact, distance, coarse)


class Attention(nn.Module):
    """Of queries made of `x` to keys and values made of anything."""

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0):
        super().__init__()
        self.head_dim, self.dropout = width // heads, dropout
        self.query = FastLinear(width, width, bias=False)
        self.key_value = FastLinear(width, 2 * width, bias=False)
        self.out = FastLinear(width, width, bias=False)

    def keys_values(self, memory: Tensor, rotation: Rotation | None = None) -> KeysValues:
        """(B, T, C) to keys and values."""
        keys, values = self.key_value(memory).unflatten(-1, (-1, self.head_dim)).chunk(2, 2)
        return keys if rotation is None else rotate(keys, rotation), values

    def forward(self, x: Tensor, memory: KeysValues, bias: Tensor, rotation: Rotation | None = None) -> Tensor:
        """(B, T_q, C) -> (B, T_q, C); `bias` (B, N or 1, T_q, T_k) is added to the logits, -inf where none is seen."""
        queries = self.query(x).unflatten(-1, (-1, self.head_dim))  # (B, T_q, N, D)
        queries = queries if rotation is None else rotate(queries, rotation)
        mixed = F.scaled_dot_product_attention(
            queries.transpose(1, 2), memory[0].transpose(1, 2), memory[1].transpose(1, 2), attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return self.out(mixed.transpose(1, 2).flatten(2))


@dataclass
class BlockCache:
    """What one block of the decoder has seen: of its own tokens, and of the encoder's."""

    own: KeyValueCache
    memory: KeysValues | None = None

    def select(self, rows: Tensor) -> None:
        self.own.select(rows)
        self.memory = None if self.memory is None else (self.memory[0][rows], self.memory[1][rows])


@dataclass
class DecoderCache:
    """One for each block, and how many places they hold."""

    blocks: list[BlockCache] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.blocks[0].own.length

    def select(self, rows: Tensor) -> None:
        for block in self.blocks:
            block.select(rows)


class Block(nn.Module):
    """x + attention(norm(x)), for a decoder x + attention(norm(x), memory), then x + feed_forward(norm(x))."""

    def __init__(self, width: int, heads: int, *, is_decoder: bool, activation: Activation, dropout: float):
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width), Attention(width, heads, dropout=dropout)
        self.cross_norm = nn.RMSNorm(width) if is_decoder else None
        self.cross = Attention(width, heads, dropout=dropout) if is_decoder else None
        self.feed_forward_norm, self.feed_forward = nn.RMSNorm(width), FeedForward(width, activation=activation)
        self.dropout = dropout

    def forward(
        self, x: Tensor, bias: Tensor, rotation: Rotation | None, *, memory: Tensor | None = None,
        memory_bias: Tensor | None = None, cache: BlockCache | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, T, C) -> (B, T, C)."""
        normed = self.attention_norm(x)
        own = self.attention.keys_values(normed, rotation)
        if cache is not None:
            own = cache.own.append(*own)
        x = x + self._drop(self.attention(normed, own, bias, rotation))
        if self.cross is not None and memory is not None and memory_bias is not None:
            read = cache.memory if cache is not None else None
            read = read or self.cross.keys_values(memory)
            if cache is not None:
                cache.memory = read
            x = x + self._drop(self.cross(self.cross_norm(x), read, memory_bias))
        return x + self._drop(self.feed_forward(self.feed_forward_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout, self.training)


class EncoderDecoder(nn.Module):
    """`depth` blocks each, for rows of up to `places` tokens that are cut in two."""

    def __init__(
        self, *, places: int, width: int, depth: int, heads: int, activation: Activation = "relu2",
        positions: Literal["relative", "rotary"] = "relative", dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.places = places
        is_relative = positions == "relative"
        self.rotary = None if is_relative else Rotary(width // heads, places)
        self.encoder_bias = RelativeBias(heads, both_sides=True) if is_relative else None
        self.decoder_bias = RelativeBias(heads, both_sides=False) if is_relative else None
        made = {"activation": activation, "dropout": dropout}
        self.encoder = nn.ModuleList(Block(width, heads, is_decoder=False, **made) for _ in range(depth))
        self.decoder = nn.ModuleList(Block(width, heads, is_decoder=True, **made) for _ in range(depth))
        self.encoder_norm, self.decoder_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        for block in (*self.encoder, *self.decoder):
            for name, layer in block.named_modules():
                if isinstance(layer, FastLinear):
                    depths = 2 * depth if name.endswith("out") else 1  # what writes into the residual stream
                    nn.init.normal_(layer.weight, std=(depths * layer.in_features) ** -0.5)

    def encode(self, x: Tensor, cut: Tensor) -> Tensor:
        """(B, T, C), of which row i is read up to its place cut[i] >= 1, to what the decoder looks at, (B, T, C)."""
        place = torch.arange(x.shape[1], device=x.device)
        bias = self._bias(self.encoder_bias, place, place, self._is_before(cut, place))
        rotation = self.rotary(0, x.shape[1]) if self.rotary is not None else None
        for block in self.encoder:
            x = block(x, bias, rotation)
        return self.encoder_norm(x)

    def decode(self, x: Tensor, memory: Tensor, cut: Tensor, cache: DecoderCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C), where the output at cut[i] - 1 and after depends on the row up to there.

        The outputs before that are not to be used. With a cache, `x` follow the places that it holds.
        """
        start = cache.length if cache else 0
        key = torch.arange(start + x.shape[1], device=x.device)
        query = key[start:]
        is_own = (key >= cut[:, None, None] - 1) & (key <= query[:, None])  # (B, T_q, T_k)
        is_own = is_own | (key == query[:, None])  # a row of nothing has no softmax
        bias = self._bias(self.decoder_bias, query, key, is_own[:, None])
        memory_bias = self._bias(None, query, key, self._is_before(cut, torch.arange(memory.shape[1], device=x.device)))
        rotation = self.rotary(start, len(key)) if self.rotary is not None else None
        for index, block in enumerate(self.decoder):
            own = cache.blocks[index] if cache else None
            x = block(x, bias, rotation, memory=memory, memory_bias=memory_bias, cache=own)
        return self.decoder_norm(x)

    def new_cache(self) -> DecoderCache:
        return DecoderCache([BlockCache(KeyValueCache(self.places)) for _ in self.decoder])

    @staticmethod
    def _is_before(cut: Tensor, place: Tensor) -> Tensor:
        """(B, 1, 1, T)."""
        return (place < cut[:, None])[:, None, None]

    @staticmethod
    def _bias(learned: RelativeBias | None, query: Tensor, key: Tensor, is_seen: Tensor) -> Tensor:
        """`is_seen` (B, 1, T_q or 1, T_k) to what is added to the logits."""
        bias = torch.zeros((), device=is_seen.device) if learned is None else learned(query, key)
        return torch.where(is_seen, bias, -torch.inf)
