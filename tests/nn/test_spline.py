"""Splines: the identity at zero, monotone, inverse and slope exact, straight lines outside."""

import torch

from genai_cli.nn.spline import inverse_spline, num_parameters, spline

BINS = 5


def parameters(count: int, scale: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    row = scale * torch.randn(1, num_parameters(BINS), generator=generator, dtype=torch.float64)
    return row.expand(count, -1)


def test_zero_is_the_identity():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    y, log_slope = spline(x, parameters(101, 0.0), bound=3.0)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), atol=1e-9, rtol=0)


def test_it_rises_is_inverted_and_knows_its_slope():
    x = torch.linspace(-4, 4, 2001, dtype=torch.float64).requires_grad_()
    y, log_slope = spline(x, parameters(2001, 2.0), bound=3.0)
    assert (y.diff() > 0).all() and y.diff().max() > 3 * y.diff().median()
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log(), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(inverse_spline(y, parameters(2001, 2.0), bound=3.0), x, atol=1e-9, rtol=0)
    outside = x.abs() > 3
    assert torch.equal(y[outside], x[outside])


def test_numbers_in_single_precision_come_back():
    x = torch.linspace(-3.5, 3.5, 5001)
    y, _ = spline(x, parameters(5001, 0.7).float(), bound=3.0)
    torch.testing.assert_close(inverse_spline(y, parameters(5001, 0.7).float(), bound=3.0), x, atol=1e-5, rtol=0)
