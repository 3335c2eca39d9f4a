"""Facts about noise levels."""

import itertools
import math

import pytest
import torch

from genai_cli.samplers.schedules import (
    SCHEDULES,
    cosine_schedule,
    karras_sigmas,
    linear_schedule,
    sigma_of_alpha_bar,
    spaced_timesteps,
)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("num_timesteps", [1, 2, 8, 37, 1000, 4000])
def test_schedule_falls_from_clean_data_to_noise(name, num_timesteps):
    alpha_bar = SCHEDULES[name](num_timesteps)
    assert alpha_bar.dtype == torch.float64 and alpha_bar.shape == (num_timesteps + 1,)
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all() and (alpha_bar > 0).all()
    assert alpha_bar[-1] < 2e-3  # what is left of the signal in x_T


def test_linear_schedule_has_the_betas_of_the_paper():
    alpha_bar = linear_schedule(1000)
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    torch.testing.assert_close(beta, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))


def test_linear_schedules_of_different_lengths_are_one_curve():
    torch.testing.assert_close(linear_schedule(50), linear_schedule(1000)[::20])


def test_cosine_schedule_is_the_squared_cosine():
    alpha_bar = cosine_schedule(100)
    expected = [
        (math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
        for t in range(100)  # the last step is where beta is held at 0.999
    ]
    torch.testing.assert_close(alpha_bar[:-1], torch.tensor(expected, dtype=torch.float64))
    assert alpha_bar[-1] / alpha_bar[-2] == pytest.approx(0.001)


@pytest.mark.parametrize(("num_timesteps", "steps"), [(1000, 50), (1000, 1000), (7, 3), (10, 7), (1, 1)])
def test_timesteps_walk_from_noise_to_data(num_timesteps, steps):
    visited = spaced_timesteps(num_timesteps, steps)
    assert len(visited) == steps + 1
    assert visited[0] == num_timesteps and visited[-1] == 0
    assert all(t > s for t, s in itertools.pairwise(visited))


@pytest.mark.parametrize("steps", [0, 11])
def test_impossible_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps={steps} must be between 1 and num_timesteps=10"):
        spaced_timesteps(10, steps)


def test_sigma_is_the_noise_of_one_unit_of_signal():
    alpha_bar = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    torch.testing.assert_close(sigma_of_alpha_bar(alpha_bar), torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_karras_levels_fall_evenly_in_their_root(steps):
    sigmas = karras_sigmas(steps, 0.002, 80.0, rho=7.0)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(80)
    if steps > 1:
        assert sigmas[-2] == pytest.approx(0.002)
        strides = [low ** (1 / 7) - high ** (1 / 7) for high, low in itertools.pairwise(sigmas[:-1])]
        assert strides == pytest.approx([strides[0]] * len(strides)) and strides[0] < 0
