"""Facts about schedules, objectives and samplers of diffusion, most of them where the answer is a known Gaussian."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.diffusion import (
    SCHEDULES,
    ancestral,
    cosine_schedule,
    ddim,
    linear_schedule,
    min_snr_weight,
    posterior,
    prediction_target,
    prediction_to_x0,
    spaced_timesteps,
)

MEAN, STD = 0.7, 0.5  # of Gaussian data


class NoRandom:
    """A source of randomness that must not be asked."""

    def normal(self, *shape: int) -> Tensor:
        raise AssertionError("a deterministic sampler drew noise")


def gaussian_denoiser(alpha_bar: Tensor):
    """E[x_0 | x_t] for data N(MEAN, STD^2)."""

    def denoise(x_t: Tensor, t: int) -> Tensor:
        alpha = math.sqrt(alpha_bar[t])
        gain = alpha * STD**2 / (alpha**2 * STD**2 + 1 - float(alpha_bar[t]))
        return MEAN + gain * (x_t - alpha * MEAN)

    return denoise


# Schedules


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


# Objectives


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_a_perfect_prediction_gives_back_the_data(objective):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    alpha_bar = cosine_schedule(50)[1:, None]
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x_t = alpha * x0 + sigma * eps
    prediction = prediction_target(objective, x0, eps, alpha, sigma)
    torch.testing.assert_close(prediction_to_x0(objective, prediction, x_t, alpha, sigma), x0)


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_min_snr_weighs_every_objective_as_the_same_error_of_x0(objective):
    generator = torch.Generator().manual_seed(0)
    x_t, right, wrong = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    alpha_bar = cosine_schedule(50)[1:]
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    error_of_x0 = (
        prediction_to_x0(objective, wrong, x_t, alpha, sigma) - prediction_to_x0(objective, right, x_t, alpha, sigma)
    ).square()
    weighted = min_snr_weight(objective, alpha, sigma, gamma=5.0) * (wrong - right).square()
    torch.testing.assert_close(weighted, (alpha**2 / sigma**2).clamp(max=5.0) * error_of_x0)


# Samplers


def test_posterior_is_bayes_rule():
    """q(x_s | x_t, x_0) is q(x_s | x_0) q(x_t | x_s) normalised: precisions add, means weigh by precision."""
    alpha_bar_t, alpha_bar_s = 0.3, 0.6
    x0, x_t = torch.tensor(0.4), torch.tensor(-1.3)
    step = alpha_bar_t / alpha_bar_s  # x_t = sqrt(step) x_s + sqrt(1 - step) noise
    prior_precision, likelihood_precision = 1 / (1 - alpha_bar_s), step / (1 - step)
    variance = 1 / (prior_precision + likelihood_precision)
    mean = variance * (prior_precision * math.sqrt(alpha_bar_s) * x0 + likelihood_precision * x_t / math.sqrt(step))
    found_mean, found_variance = posterior(x0, x_t, alpha_bar_t, alpha_bar_s)
    assert found_variance == pytest.approx(variance)
    torch.testing.assert_close(found_mean, mean)


@pytest.mark.parametrize(("sampler", "options"), [(ancestral, {}), (ddim, {"eta": 0.0}), (ddim, {"eta": 0.6})])
def test_every_chain_has_the_marginals_of_the_forward_process(sampler, options):
    """Of data at one point, whose denoiser is a constant, every x_s of the chain is exactly q(x_s | x_0)."""
    alpha_bar, seen = linear_schedule(8), {}

    def denoise(x_t: Tensor, t: int) -> Tensor:
        seen[t] = x_t
        return torch.full_like(x_t, MEAN)

    random = BatchRandom(0, stop=20_000)
    samples = sampler(denoise, random.normal(1), alpha_bar, steps=8, random=random, **options)
    torch.testing.assert_close(samples, torch.full_like(samples, MEAN))
    for t, x_t in seen.items():
        assert x_t.mean().item() == pytest.approx(math.sqrt(alpha_bar[t]) * MEAN, abs=0.03)
        assert x_t.var().item() == pytest.approx(1 - float(alpha_bar[t]), rel=0.05)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_ancestral_sampling_reaches_gaussian_data(schedule):
    alpha_bar = SCHEDULES[schedule](400)
    random = BatchRandom(0, stop=20_000)
    samples = ancestral(gaussian_denoiser(alpha_bar), random.normal(1), alpha_bar, steps=400, random=random)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(STD, rel=0.03)


def test_ddim_converges_to_the_exact_map_in_first_order():
    """The probability flow carries each quantile of x_T to that of the data; twice the steps, half the error."""
    alpha_bar = cosine_schedule(4096)[:-256]  # short of the end, where alpha_bar is 1e-8
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    alpha, sigma = alpha_bar[-1].sqrt(), (1 - alpha_bar[-1]).sqrt()
    exact = MEAN + STD * (noise - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()
    errors = []
    for steps in (30, 60, 120, 240):
        found = ddim(gaussian_denoiser(alpha_bar), noise, alpha_bar, steps=steps, random=NoRandom())
        errors.append((found - exact).abs().max().item())
    assert errors[-1] < 0.01
    for coarse, fine in itertools.pairwise(errors):
        assert 1.8 < coarse / fine < 2.2


@pytest.mark.parametrize("steps", [12, 5])
def test_ddim_with_eta_one_is_ancestral_sampling(steps):
    alpha_bar = linear_schedule(12)
    noise = BatchRandom(1, stop=6).normal(2)
    options = {"steps": steps, "random": BatchRandom(2, stop=6)}
    expected = ancestral(gaussian_denoiser(alpha_bar), noise, alpha_bar, **options)
    options["random"] = BatchRandom(2, stop=6)
    torch.testing.assert_close(ddim(gaussian_denoiser(alpha_bar), noise, alpha_bar, eta=1.0, **options), expected)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_draws_eta_times_the_noise_of_the_posterior(eta):
    alpha_bar, seen = linear_schedule(20), {}

    def denoise(x_t: Tensor, t: int) -> Tensor:
        seen[t] = x_t
        return torch.zeros_like(x_t)

    ddim(denoise, torch.zeros(20_000, 1), alpha_bar, steps=20, random=BatchRandom(0, stop=20_000), eta=eta)
    _, variance = posterior(torch.zeros(1), torch.zeros(1), float(alpha_bar[20]), float(alpha_bar[19]))
    assert seen[19].std().item() == pytest.approx(eta * math.sqrt(variance), rel=0.02)


@pytest.mark.parametrize("sampler", [ancestral, ddim])
def test_a_sample_does_not_depend_on_its_batch(sampler):
    alpha_bar = linear_schedule(10)

    def draw(indices) -> Tensor:
        random = SampleRandom(3, indices)
        noise = random.normal(4)
        options = {"eta": 0.5} if sampler is ddim else {}
        return sampler(gaussian_denoiser(alpha_bar), noise, alpha_bar, steps=7, random=random, **options)

    together = draw(range(5))
    assert torch.equal(draw(range(2)), together[:2])
    assert torch.equal(draw([4]), together[4:])


@pytest.mark.parametrize(("num_timesteps", "steps"), [(1000, 50), (1000, 1000), (7, 3), (10, 7), (1, 1)])
def test_timesteps_walk_from_noise_to_data(num_timesteps, steps):
    moves = spaced_timesteps(num_timesteps, steps)
    assert len(moves) == steps
    assert moves[0][0] == num_timesteps and moves[-1][1] == 0
    assert all(t > s for t, s in moves)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(moves))


@pytest.mark.parametrize("steps", [0, 11])
def test_impossible_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps={steps} must be between 1 and num_timesteps=10"):
        spaced_timesteps(10, steps)
