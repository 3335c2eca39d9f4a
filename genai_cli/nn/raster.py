"""Causal convolutions in raster order, in two streams (van den Oord et al. 2016, arXiv:1606.05328, Figure 1).

The vertical stream knows the rows above, whole; the horizontal one the pixels to the left, and what the vertical stream
sends it. Both are written once for whole images and for what comes next: with a `Memory` a convolution is given one new
row, or one new pixel, and remembers as much of what came before as its kernel reaches. So an image is drawn at the
price of one pass.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.transformer import KeyValueCache, SelfAttention


class Memory:
    """The last slices that each causal layer has been given, along rows or columns; and all, of an attention."""

    def __init__(self) -> None:
        self.place = 0  # of what is given now, in raster order
        self.caches: dict[nn.Module, KeyValueCache] = {}
        self._held: dict[nn.Module, Tensor] = {}
        self._fresh: dict[nn.Module, Tensor] = {}

    def extend(self, layer: nn.Module, x: Tensor, dim: int, length: int) -> Tensor:
        """`x` after the `length` slices that came before it (zeros at the edge). Kept only by `advance`: until then
        the same place may be given again."""
        held = self._held.get(layer)
        if held is None:
            shape = list(x.shape)
            shape[dim] = length
            held = x.new_zeros(shape)
        joined = torch.cat([held, x], dim)
        self._fresh[layer] = joined.narrow(dim, joined.shape[dim] - length, length)
        return joined

    def advance(self) -> None:
        """What was given last is done; the next place follows it."""
        self._held.update(self._fresh)
        self.place += 1

    def return_to_edge(self) -> None:
        """A new row begins: no slice came before. What attention knows stays."""
        self._held.clear()
        self._fresh.clear()


class DownConv(nn.Conv2d):
    """(B, C, H, W) to (B, C', H, W): row i from the rows i - kh + 1 to i, `kw` (odd) columns around its own.

    With a `dilation` the rows and columns are as far apart.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], *, dilation: int = 1):
        super().__init__(inputs, outputs, size, padding=(0, dilation * (size[1] // 2)), dilation=dilation)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        x = F.pad(x, (0, 0, reach, 0)) if memory is None else memory.extend(self, x, 2, reach)
        return super().forward(x)


class RightConv(nn.Conv2d):
    """(B, C, H, W) to (B, C', H, W): pixel j from the pixels j - size + 1 to j of its row, `dilation` apart.

    With `colours` > 1 features fall into as many groups, the g-th of which knows g colours of its own pixel: at that
    pixel a weight counts only where it leads to the same or a later group. `gated` outputs are halved by a gate.
    """

    group_mask: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, size: int = 1, *, dilation: int = 1, colours: int = 1, gated: bool = False
    ):
        super().__init__(inputs, outputs, (1, size), dilation=(1, dilation))
        mask = None
        if colours > 1:
            group_out = group(outputs // 2, colours).repeat(2) if gated else group(outputs, colours)
            mask = torch.ones(outputs, inputs, 1, size)
            mask[..., -1] = (group_out.unsqueeze(1) >= group(inputs, colours)).unsqueeze(-1)
        self.register_buffer("group_mask", mask, persistent=False)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        step = self.dilation[1]
        reach = step * (self.kernel_size[1] - 1)
        if reach > 0:
            x = F.pad(x, (reach, 0)) if memory is None else memory.extend(self, x, 3, reach)
        weight = self.weight if self.group_mask is None else self.weight * self.group_mask
        if memory is not None:  # one pixel: a product, without the cost of calling a convolution
            return F.linear(x[..., ::step].flatten(1), weight.flatten(1), self.bias)[:, :, None, None]
        return F.conv2d(x, weight, self.bias, dilation=self.dilation)


class Position(nn.Module):
    """A learned vector for each row plus one for each column: convolutions do not know where they are."""

    def __init__(self, width: int, size: tuple[int, int]):
        super().__init__()
        self.row = nn.Parameter(0.1 * torch.randn(width, size[0], 1))
        self.column = nn.Parameter(0.1 * torch.randn(width, 1, size[1]))

    def whole(self) -> Tensor:
        return self.row + self.column

    def of_row(self, row: int) -> Tensor:
        """(C, 1, W)."""
        return self.row[:, row : row + 1] + self.column

    def of_pixel(self, place: int) -> Tensor:
        """(C, 1, 1), of a place in raster order."""
        row, column = divmod(place, self.column.shape[2])
        return self.row[:, row : row + 1] + self.column[..., column : column + 1]


class RasterAttention(nn.Module):
    """Attention of each pixel to itself and all before it (Chen et al. 2017, PixelSNAIL, arXiv:1712.09763).

    Queries, keys and values come from the first group of features, which knows nothing of its own pixel, so what is
    added may go to all groups.
    """

    def __init__(self, width: int, *, colours: int, size: tuple[int, int], heads: int):
        super().__init__()
        self.first = int((group(width, colours) == 0).sum())
        self.num_pixels = size[0] * size[1]  # T
        self.position = Position(self.first, size)
        self.norm = nn.LayerNorm(self.first, bias=False)
        self.attention = SelfAttention(self.first, heads)
        self.out = nn.Linear(self.first, width)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, C, H, W), or with a memory the next pixel, (B, C, 1, 1), to the same shape."""
        position = self.position.whole() if memory is None else self.position.of_pixel(memory.place)
        tokens = (x[:, : self.first] + position).flatten(2).transpose(1, 2)  # (B, T or 1, first)
        cache = None
        if memory is not None:
            cache = memory.caches.setdefault(self, KeyValueCache(self.num_pixels))
            cache.length = memory.place  # a pixel of several colours is given several times
        mixed = self.attention(self.norm(tokens), cache=cache)
        return x + self.out(mixed).transpose(1, 2).unflatten(2, x.shape[2:])


class OwnPixel(nn.Conv2d):
    """What feature group g may know of its own pixel: the colours before the g-th. (B, C, H, W) to (B, C', H, W)."""

    mask: Tensor

    def __init__(self, colours: int, outputs: int):
        super().__init__(colours, outputs, 1, bias=False)
        is_before = group(outputs, colours).unsqueeze(1) > torch.arange(colours)
        self.register_buffer("mask", is_before[..., None, None].float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask)


def group(features: int, groups: int) -> Tensor:
    """(features,) int64: the group of each feature, in order and as equal as they can be."""
    return torch.arange(features) * groups // features


def shift_down(x: Tensor) -> Tensor:
    """Row i becomes row i + 1; the first is zeros."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    """Column j becomes column j + 1; the first is zeros."""
    return F.pad(x, (1, 0))[..., :-1]


def gate(x: Tensor) -> Tensor:
    """(B, 2 C, ...) to (B, C, ...): tanh of one half times sigmoid of the other (Eq. 2)."""
    value, gates = x.chunk(2, 1)
    return torch.tanh(value) * torch.sigmoid(gates)
