"""Facts about the samplers of diffusion, most of them where the answer is a known Gaussian."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.schedules import SCHEDULES, karras_sigmas, linear_schedule, sigma_of_alpha_bar
from genai_cli.samplers.solvers import count_steps, ddim, exponential_step, heun, posterior_variance, solve

MEAN, STD = 0.7, 0.5  # of Gaussian data
SOLVERS = ("ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc")
DETERMINISTIC = SOLVERS[1:]


class NoRandom:
    """A source of randomness that must not be asked."""

    def normal(self, *shape: int) -> Tensor:
        raise AssertionError("a deterministic sampler drew noise")


def gaussian_denoiser(x: Tensor, sigma: float) -> Tensor:
    """E[x_0 | x] for data N(MEAN, STD^2)."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def exact_flow(x: Tensor, start: float, stop: float) -> Tensor:
    """Where the probability flow carries x from noise level `start` to `stop`: every quantile stays one."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + stop**2) / (STD**2 + start**2))


def falling_levels(steps: int, name: str = "linear") -> list[float]:
    """The noise levels of a discrete diffusion of so many timesteps, from T to 0."""
    return sigma_of_alpha_bar(SCHEDULES[name](steps)).flip(0).tolist()


# Order of convergence


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 4)])
def test_solver_converges_to_the_exact_map_in_its_order(solver, order):
    """Twice the steps, 2^-order the error: of the flow from noise level 20 to 0.02."""
    x = 20 * torch.linspace(-2, 2, 9, dtype=torch.float64)
    exact = exact_flow(x, 20.0, 0.02)
    errors = []
    for steps in (40, 80, 160):
        sigmas = karras_sigmas(steps + 1, 0.02, 20.0)[:-1]
        found = solve(solver, gaussian_denoiser, x, sigmas, random=NoRandom())
        errors.append((found - exact).abs().max().item())
    assert errors[-1] < 0.02
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("solver", "evaluations"), [("ddim", 12), ("heun", 23), ("dpmpp_2m", 12), ("unipc", 12)])
def test_evaluations_of_the_network_a_step(solver, evaluations):
    asked = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return gaussian_denoiser(x, sigma)

    solve(solver, denoise, torch.ones(3), karras_sigmas(12, 0.02, 20.0), random=NoRandom())
    assert len(asked) == evaluations


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("allowed", [1, 2, 5, 10, 21])
def test_evaluations_are_spent_and_never_exceeded(solver, allowed):
    asked = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return gaussian_denoiser(x, sigma)

    steps = count_steps(solver, 1000, steps=None, evaluations=allowed)
    solve(solver, denoise, torch.ones(1, 3), karras_sigmas(steps, 0.02, 20.0), random=SampleRandom(0, [0]))
    assert allowed - (solver == "heun") <= len(asked) <= allowed  # heun's number is odd


def test_steps_are_the_models_own_unless_they_are_given_and_never_given_twice():
    assert count_steps("heun", 18, steps=None, evaluations=None) == 18
    assert count_steps("heun", 18, steps=3, evaluations=None) == 3
    with pytest.raises(ValueError, match="both say how long"):
        count_steps("heun", 18, steps=3, evaluations=5)
    with pytest.raises(ValueError, match="give steps"):
        count_steps("ddpm", 18, steps=None, evaluations=5, is_completed=True)


def test_an_exponential_step_is_exact_where_the_data_are_polynomial_in_time():
    """With x_0 = 1 + 2 t - t^3, dx / dt = x_0 - x is solved by a polynomial that can be written down."""

    def denoised(t: float) -> float:
        return 1 + 2 * t - t**3

    def particular(t: float) -> float:  # of x' + x = x_0
        return 5 - 4 * t + 3 * t**2 - t**3

    now, then, start = 0.3, 1.1, 2.0
    exact = particular(then) + math.exp(now - then) * (start - particular(now))
    nodes = [(t, torch.tensor(denoised(t), dtype=torch.float64)) for t in (1.1, 0.3, -0.2, -0.9)]
    found = exponential_step(torch.tensor(start, dtype=torch.float64), now, then, nodes)
    assert particular(0.5) - 4 + 6 * 0.5 - 3 * 0.25 == pytest.approx(denoised(0.5))  # it does solve the equation
    assert found.item() == pytest.approx(exact, rel=1e-12)


def test_all_solvers_sample_gaussian_data():
    for solver in SOLVERS:
        random = BatchRandom(0, stop=20_000)
        x = 80 * random.normal(1)
        samples = solve(solver, gaussian_denoiser, x, karras_sigmas(400, 0.002, 80.0), random=random)
        assert samples.mean().item() == pytest.approx(MEAN, abs=0.02), solver
        assert samples.std().item() == pytest.approx(STD, rel=0.03), solver


def test_one_step_to_zero_is_the_denoiser():
    x = torch.tensor([-3.0, 5.0])
    for solver in DETERMINISTIC:
        found = solve(solver, gaussian_denoiser, x, [4.0, 0.0], random=NoRandom())
        torch.testing.assert_close(found, gaussian_denoiser(x, 4.0))


# Noise


def test_posterior_is_bayes_rule():
    """q(x at s | x at t, x_0): precisions add, means weigh by precision."""
    sigma, lower = 1.7, 0.6  # x_t = x_s + sqrt(sigma^2 - lower^2) noise
    prior_precision, likelihood_precision = 1 / lower**2, 1 / (sigma**2 - lower**2)
    variance = 1 / (prior_precision + likelihood_precision)
    assert posterior_variance(sigma, lower) == pytest.approx(variance)
    assert (lower / sigma) ** 2 == pytest.approx(variance * likelihood_precision)  # the weight of x_t in the mean


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_every_chain_has_the_marginals_of_the_forward_process(eta):
    """Of data at one point, whose denoiser is a constant, every x of the chain is exactly q(x | x_0)."""
    seen = {}

    def denoise(x: Tensor, sigma: float) -> Tensor:
        seen[sigma] = x
        return torch.full_like(x, MEAN)

    random, sigmas = BatchRandom(0, stop=20_000), falling_levels(8)
    x = MEAN + sigmas[0] * random.normal(1)
    samples = ddim(denoise, x, sigmas, random=random, eta=eta)
    torch.testing.assert_close(samples, torch.full_like(samples, MEAN))
    for sigma, x in seen.items():
        assert x.mean().item() == pytest.approx(MEAN, abs=0.03 * sigma)
        assert x.std().item() == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_ancestral_sampling_reaches_gaussian_data(schedule):
    random, sigmas = BatchRandom(0, stop=20_000), falling_levels(400, schedule)
    samples = solve("ddpm", gaussian_denoiser, sigmas[0] * random.normal(1), sigmas, random=random)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_draws_eta_times_the_noise_of_the_posterior(eta):
    seen, sigmas = {}, falling_levels(20)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        seen[sigma] = x
        return torch.zeros_like(x)

    ddim(denoise, torch.zeros(20_000, 1), sigmas, random=BatchRandom(0, stop=20_000), eta=eta)
    expected = eta * math.sqrt(posterior_variance(sigmas[0], sigmas[1]))
    assert seen[sigmas[1]].std().item() == pytest.approx(expected, rel=0.02)


def test_churn_raises_the_noise_level_before_each_step():
    asked, sigmas = [], [4.0, 2.0, 0.0]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append((sigma, x.std().item()))
        return torch.zeros_like(x)

    random = BatchRandom(0, stop=40_000)
    heun(denoise, 4.0 * random.normal(1), sigmas, random=random, churn=0.5)
    assert [sigma for sigma, _ in asked] == pytest.approx([5.0, 2.0, 2.5])
    for sigma, std in asked:
        assert std == pytest.approx(sigma, rel=0.02)  # of data at 0, what is left is noise of that level


@pytest.mark.parametrize(
    ("solver", "options"),
    [("ddpm", {}), ("ddim", {"eta": 0.5}), ("heun", {"churn": 5.0}), ("dpmpp_2m", {}), ("unipc", {})],
)
def test_a_sample_does_not_depend_on_its_batch(solver, options):
    def draw(indices) -> Tensor:
        random = SampleRandom(3, indices)
        x = 80 * random.normal(4)
        return solve(solver, gaussian_denoiser, x, karras_sigmas(7, 0.002, 80.0), random=random, **options)

    together = draw(range(5))
    assert torch.equal(draw(range(2)), together[:2])
    assert torch.equal(draw([4]), together[4:])


def test_options_of_another_solver_are_refused():
    for solver in set(SOLVERS) - {"ddim"}:
        with pytest.raises(ValueError, match=rf"eta=0\.5 belongs to solver=ddim, not to solver={solver}"):
            solve(solver, gaussian_denoiser, torch.zeros(1), [1.0, 0.0], random=NoRandom(), eta=0.5)
    for solver in set(SOLVERS) - {"euler", "heun"}:
        with pytest.raises(ValueError, match=rf"churn=1 belongs to solver=euler and .*, not to solver={solver}"):
            solve(solver, gaussian_denoiser, torch.zeros(1), [1.0, 0.0], random=NoRandom(), churn=1)


def test_ddim_with_eta_one_is_the_linear_schedule_of_the_paper():
    """One step of Algorithm 2 in the paper's own coordinates: the mean of Eq. 7 with its beta and alpha."""
    alpha_bar = linear_schedule(12)
    t, x_t, x0 = 7, torch.tensor([1.3]), torch.tensor([-0.4])
    bar, bar_before = float(alpha_bar[t]), float(alpha_bar[t - 1])
    beta = 1 - bar / bar_before
    mean = math.sqrt(bar_before) * beta / (1 - bar) * x0 + math.sqrt(1 - beta) * (1 - bar_before) / (1 - bar) * x_t
    sigma, lower = sigma_of_alpha_bar(alpha_bar)[[t, t - 1]].tolist()
    ours = x0 + (lower / sigma) ** 2 * (x_t / math.sqrt(bar) - x0)
    torch.testing.assert_close(math.sqrt(bar_before) * ours, mean)
    paper_variance = (1 - bar_before) / (1 - bar) * beta
    assert bar_before * posterior_variance(sigma, lower) == pytest.approx(paper_variance)
