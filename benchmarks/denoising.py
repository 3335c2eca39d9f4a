"""What U-Nets of several packages share when measured: the data, their arithmetic, the ceiling of a machine."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import Timing, Turns

MATMUL_SIDE, MATMULS = 1024, 10  # of a step of `multiply`
CONV = (32, 64, 28, 28)  # (B, C, H, W) of what `convolve` passes through C to C channels


def digits() -> Tensor:
    """(N, 1, 28, 28) in [0, 255]: MNIST, in memory."""
    from genai_cli.data.mnist import Mnist

    return Mnist().load("train").tensors["image"].float()


def flops(network: nn.Module, inputs: tuple[Tensor, ...], *, with_backward: bool) -> int:
    """Of one pass, a multiplication and an addition for two: matrix products, convolutions and attention alone."""
    counter = FlopCounterMode(display=False)
    with counter, torch.set_grad_enabled(with_backward):
        out = network(*inputs)
        if with_backward:
            getattr(out, "sample", out).sum().backward()
    return counter.get_total_flops()


def multiply(turns: Turns) -> None:
    """Products of square matrices that fit the cache, in fp32. A step is ten of them."""
    a, b = torch.randn(2, MATMUL_SIDE, MATMUL_SIDE)
    out = torch.empty_like(a)
    turns.ready(parameters=0)
    while True:
        for _ in range(MATMULS):
            torch.mm(a, b, out=out)
        turns.step_done()


def convolve(turns: Turns) -> None:
    """A 3x3 convolution, forward and backward, which on some processors is faster than torch's products."""
    layer = nn.Conv2d(CONV[1], CONV[1], 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(CONV).contiguous(memory_format=torch.channels_last).requires_grad_()
    turns.ready(parameters=0)
    while True:
        layer(x).sum().backward()
        turns.step_done()


CEILINGS = {"products of matrices": multiply, "a 3x3 convolution with backward": convolve}
CEILING_FLOPS = {
    "products of matrices": 2 * MATMULS * MATMUL_SIDE**3,
    "a 3x3 convolution with backward": 3 * 2 * CONV[0] * CONV[2] * CONV[3] * 9 * CONV[1] ** 2,
}


def gflops(timing: Timing, work: float) -> list[float]:
    """GFLOP/s of each turn, where a step does `work`."""
    return [work / seconds / 1e9 for seconds in timing.seconds]


def shares(timing: Timing, work: float, ceiling: list[float]) -> list[float]:
    """The same in per cent of the `ceiling` of the neighbouring turn."""
    return [100 * speed / most for speed, most in zip(gflops(timing, work), ceiling, strict=True)]
