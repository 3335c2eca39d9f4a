"""Facts about rotary positions, in float64."""

import pytest
import torch
from torch import Tensor

from genai_cli.nn.rotary import Rotary, rotate

HEAD_DIM, LENGTH = 8, 40


@pytest.fixture
def rotary() -> Rotary:
    torch.set_default_dtype(torch.float64)
    try:
        return Rotary(HEAD_DIM, LENGTH)
    finally:
        torch.set_default_dtype(torch.float32)


def vectors(seed: int) -> Tensor:
    """The same vector at every position, (1, T, 1, D)."""
    vector = torch.randn(HEAD_DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vector.expand(1, LENGTH, 1, HEAD_DIM)


def test_query_meets_key_at_their_distance_alone(rotary: Rotary) -> None:
    queries, keys = (rotate(vectors(seed), rotary(0, LENGTH))[0, :, 0] for seed in (0, 1))
    scores = queries @ keys.T  # (T, T)
    for distance in range(-LENGTH + 1, LENGTH):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-12, rtol=0)
    assert scores[0].std() > 0.1  # and the distance matters


def test_equals_multiplication_of_complex_pairs(rotary: Rotary) -> None:
    x = torch.randn(2, LENGTH, 3, HEAD_DIM, dtype=torch.float64)
    pairs = torch.complex(*x.chunk(2, -1))  # (B, T, N, D / 2)
    theta = 10_000.0 ** (-2 * torch.arange(HEAD_DIM // 2, dtype=torch.float64) / HEAD_DIM)
    angles = torch.arange(LENGTH, dtype=torch.float64)[:, None, None] * theta
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotate(x, rotary(0, LENGTH)), torch.cat((turned.real, turned.imag), -1))


def test_first_position_is_left_alone_and_norms_are_kept(rotary: Rotary) -> None:
    x = vectors(0)
    turned = rotate(x, rotary(0, LENGTH))
    assert torch.equal(turned[:, 0], x[:, 0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_a_later_part_is_turned_as_in_the_whole(rotary: Rotary) -> None:
    x = vectors(0)
    assert torch.equal(rotate(x[:, 7:9], rotary(7, 9)), rotate(x, rotary(0, LENGTH))[:, 7:9])


def test_precision_of_the_input_is_kept() -> None:
    x = torch.randn(1, 4, 1, HEAD_DIM, dtype=torch.bfloat16)
    assert rotate(x, Rotary(HEAD_DIM, 4)(0, 4)).dtype == torch.bfloat16
