"""Facts about the importance-weighted bound: one draw is the ELBO's integrand, parts change nothing."""

import math

import torch

from genai_cli.nn.importance import AT_ONCE, importance_weighted_bound


def test_the_parts_are_one_mean_of_ratios():
    count = 2 * AT_ONCE + 3
    ratios = torch.randn(count, 5, generator=torch.Generator().manual_seed(0))
    asked = []

    def log_weights(number: int) -> torch.Tensor:
        asked.append(number)
        return ratios[sum(asked[:-1]) : sum(asked)]

    bound = importance_weighted_bound(log_weights, count)
    torch.testing.assert_close(bound, ratios.exp().mean(0).log())
    assert asked == [AT_ONCE, AT_ONCE, 3]


def test_one_draw_is_its_own_bound_and_equal_ratios_add_nothing():
    torch.testing.assert_close(importance_weighted_bound(lambda n: torch.full((n, 2), -7.0), 1), torch.full((2,), -7.0))
    bound = importance_weighted_bound(lambda n: torch.full((n, 2), math.log(0.3)), 100)
    torch.testing.assert_close(bound, torch.full((2,), math.log(0.3)))
