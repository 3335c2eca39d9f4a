"""Facts about convolutions that change the side."""

import torch
import torch.nn.functional as F

from genai_cli.nn.conv import doubling, halving


def test_sides_double_and_halve():
    x = torch.zeros(2, 3, 6, 10)
    assert doubling(3, 5)(x).shape == (2, 5, 12, 20)
    assert halving(3, 5)(x).shape == (2, 5, 3, 5)


def test_doubling_can_be_enlarging_before_a_3x3_convolution():
    """Where the 3x3 kernel touches one source pixel twice, the 4x4 one holds the sum of its two weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    kernel = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)  # (out, in, 3, 3)
    slow = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), kernel, padding=1)

    # Along each axis, tap k of the transposed kernel is the sum of the taps 2 - k and 3 - k of the other.
    spread = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)  # (4 taps, 3 taps)
    fast = doubling(3, 4, bias=False).double()
    with torch.no_grad():
        fast.weight.copy_(torch.einsum("oiyx,ay,bx->ioab", kernel, spread, spread))
    torch.testing.assert_close(fast(x), slow)
