"""Facts about total correlation: the three parts add up to the KL term, and are what is known of Gaussians."""

import math

import pytest
import torch

from genai_cli.engine.distributed import World
from genai_cli.nn.gaussians import log_normal, log_standard_normal
from genai_cli.nn.random import BatchRandom
from genai_cli.nn.ranks import gather_over_ranks
from genai_cli.nn.total_correlation import decompose, shuffle_coordinates
from tests.models.ranks import run_on_two_ranks


def seeded(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_parts_add_up_to_the_kl_of_each_draw():
    mu, logvar = seeded(2, 50, 3)
    z = mu + (0.5 * logvar).exp() * seeded(50, 3, seed=1)
    parts = decompose(z, mu, logvar)
    torch.testing.assert_close(sum(parts), log_normal(z, mu, logvar) - log_standard_normal(z))


def test_the_total_correlation_is_that_of_correlated_gaussians():
    """Codes of correlation rho have TC = -1/2 log(1 - rho^2); posteriors of some width leave a smooth q(z)."""
    rho, width, count = 0.8, 0.15, 3000
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    signal = torch.linalg.cholesky(covariance - width * torch.eye(2))
    mu = seeded(count, 2) @ signal.T
    z = mu + math.sqrt(width) * seeded(count, 2, seed=1)
    parts = decompose(z, mu, torch.full_like(mu, math.log(width)))
    assert parts.total_correlation.mean().item() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.06)
    assert parts.dimension_wise.mean().item() == pytest.approx(0, abs=0.05)  # each coordinate is standard normal
    information = 0.5 * torch.logdet(covariance / width).item()
    assert parts.mutual_information.mean().item() == pytest.approx(information, abs=0.1)


def test_shuffling_keeps_every_coordinate_and_breaks_their_ties():
    z = seeded(2000, 1).expand(2000, 3)
    shuffled = shuffle_coordinates(z, BatchRandom(0, stop=2000))
    torch.testing.assert_close(shuffled.sort(0).values, z.sort(0).values)
    assert (shuffled.T.corrcoef() - torch.eye(3)).abs().max() < 0.1


def of_a_rank(world: World) -> dict[str, torch.Tensor]:
    """The parts and the shuffled codes of 8 rows that the ranks share, gathered again; and a gradient of their mean."""
    rows = slice(world.rank * 8 // world.size, (world.rank + 1) * 8 // world.size)
    mu, logvar, noise = (values[rows] for values in seeded(3, 8, 3))
    mu.requires_grad_()
    z = mu + (0.5 * logvar).exp() * noise
    parts = decompose(z, mu, logvar)
    parts.total_correlation.mean().backward()
    shuffled = shuffle_coordinates(z.detach(), BatchRandom(0, start=rows.start, stop=rows.stop, total=8))
    gathered = {name: gather_over_ranks(part.detach()) for name, part in parts._asdict().items()}
    # What the engine averages over ranks is the gradient of weights; of a row it is 1 / R of what one process has.
    gradient = gather_over_ranks(mu.grad) / world.size
    return {**gathered, "shuffled": gather_over_ranks(shuffled), "gradient": gradient}


def test_two_ranks_see_the_batch_of_one():
    alone, together = of_a_rank(World()), run_on_two_ranks(of_a_rank)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value)
