"""Facts about models that learn at many noise levels: where they are examined, and what their samplers visit."""

import math

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.models.consistency import Consistency
from genai_cli.models.ddpm import DDPM
from genai_cli.models.edm import EDM
from genai_cli.models.flow_matching import SIGMA_MAX, FlowMatching
from genai_cli.models.meanflow import MeanFlow
from genai_cli.nn.random import BatchRandom
from genai_cli.samplers.schedules import flow_sigmas, karras_sigmas

IMAGE = Spec("image", (1, 8, 8), (-1.0, 1.0))
POINT = Spec("points", (2,))
COUNT = 500


@pytest.mark.parametrize("kind", [Consistency, DDPM, EDM, FlowMatching, MeanFlow])
def test_held_out_examples_are_examined_once_in_each_quarter_of_the_levels_of_training(kind):
    """So the figure is a mean over all levels, of less variance than as many draws."""
    model = kind(IMAGE, **{**kind.tiny, **({"num_timesteps": 1000} if kind is DDPM else {})})
    quantiles: list[Tensor] = []  # of the noise levels of training, (B,) each

    def note(quantile: Tensor) -> Tensor:
        quantiles.append(quantile)
        return torch.zeros(COUNT)

    if kind is EDM:
        normal = torch.distributions.Normal(model.noise_mean, model.noise_std)
        model._squared_error = lambda batch, sigma: note(normal.cdf(sigma.log()))
    elif kind is DDPM:
        model._squared_error = lambda batch, t: note((t - 1) / 1000)
        model._likelihood = lambda batch: {}
    elif kind is FlowMatching:
        model._squared_error = lambda batch, eps, t: note(t)
    elif kind is Consistency:
        model._inconsistency = lambda batch, quantile, intervals: note(quantile)
    else:
        model.mean_velocity = lambda z, r, t, label: note(t)[:, None, None, None].expand_as(z)
    random = BatchRandom(0, stop=COUNT)
    model.evaluate(Batch({"image": random.normal(1, 8, 8)}, random))
    found = torch.stack(quantiles)  # (4, B)
    assert torch.equal((4 * found).long(), torch.arange(4)[:, None].expand(4, COUNT))
    assert (4 * found).frac().std().item() == pytest.approx(1 / math.sqrt(12), abs=0.03)  # anywhere in each


@pytest.mark.parametrize(
    ("kind", "limits", "options", "levels"),
    [
        (EDM, {}, {}, karras_sigmas(4, 0.002, 80.0)),
        (EDM, {"sigma_min": 0.1, "sigma_max": 9.0}, {"rho": 2.0}, karras_sigmas(4, 0.1, 9.0, rho=2.0)),
        (FlowMatching, {}, {}, flow_sigmas(4, SIGMA_MAX)),
        (FlowMatching, {}, {"spacing": "karras"}, karras_sigmas(4, 0.002, 80.0)),
    ],
)
@pytest.mark.parametrize("churn", [None, 1.0])
def test_samplers_visit_the_levels_that_they_are_asked_for(kind, limits, options, levels, churn):
    """With churn each is raised first, by a share of churn / steps (Algorithm 2 of Karras et al. 2022)."""
    model, visited = kind(POINT, **kind.tiny, **limits), []
    model.denoise = lambda x, sigma, label=None: visited.append(sigma) or x
    model.sample(BatchRandom(0, stop=1), solver="euler", steps=4, churn=churn, **options)
    assert visited == pytest.approx([level * (1 + (churn or 0) / 4) for level in levels[:-1]])


@pytest.mark.parametrize("kind", [DDPM, EDM, FlowMatching])
def test_eta_draws_part_of_each_step_anew(kind):
    model = kind(POINT, **kind.tiny)
    model.denoise = lambda x, sigma, label=None: x / 2
    without, with_noise = (model.sample(BatchRandom(0, stop=9), solver="ddim", steps=3, eta=eta) for eta in (0.0, 1.0))
    ratio = without / BatchRandom(0, stop=9).normal(2)
    torch.testing.assert_close(ratio, ratio[:1, :1].expand(9, 2))  # all of it comes from the first noise
    assert (with_noise / without - 1).abs().median() > 0.01
