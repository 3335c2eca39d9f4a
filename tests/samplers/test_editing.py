"""Facts about given images: what is kept stays, and the rest fits it."""

import math

import pytest
import torch
from torch import Tensor

from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.editing import draw, repaint
from genai_cli.samplers.schedules import karras_sigmas

SHAPE = (1, 2, 1)  # an image of two pixels, one above the other
STD, CORRELATION = 0.5, 0.9


def correlated_denoiser(x: Tensor, sigma: float) -> Tensor:
    """E[x_0 | x] for two normal pixels that go together."""
    covariance = STD**2 * torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]])
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(2))
    return (x.flatten(1) @ gain.T).view_as(x)


def edit(given: Tensor | None, *, solver: str | None = None, size: int = 600, **options) -> Tensor:
    sigmas = karras_sigmas(40, 0.002, 80.0)
    return draw(solver, "heun", correlated_denoiser, sigmas, BatchRandom(0, stop=size), SHAPE, given=given, **options)


def test_what_is_kept_stays_and_the_rest_is_of_the_conditional_distribution():
    given = torch.tensor([0.6, -0.4]).view(2, 1, 1, 1).expand(2, *SHAPE)
    completed = edit(given, size=2000, keep="top_half", resample=10)
    for row, value in enumerate((0.6, -0.4)):
        mine = completed[row::2]
        assert (mine[:, 0, 0] == value).all()
        assert mine[:, 0, 1].mean().item() == pytest.approx(CORRELATION * value, abs=0.03)
        assert mine[:, 0, 1].std().item() == pytest.approx(STD * math.sqrt(1 - CORRELATION**2), rel=0.15)


@pytest.mark.parametrize("resample", [1, 3])
def test_what_is_drawn_anew_is_under_noise_of_its_level(resample):
    """Of a denoiser that says 0, at every evaluation: the chain and the steps back keep the forward marginals."""
    given, known = torch.zeros(2000, 1, 2, 8), torch.tensor([[True], [False]]).expand(2, 8)
    sigmas, seen = [9.0, 4.0, 1.5, 0.4, 0.0], []

    def denoise(x, sigma):
        seen.append((sigma, x[:, :, 1].std().item(), x[:, :, 0].std().item()))
        return torch.zeros_like(x)

    repaint(denoise, given, known, sigmas, BatchRandom(0, stop=2000), resample=resample)
    assert [sigma for sigma, *_ in seen] == [sigma for sigma in sigmas[:3] for _ in range(resample)] + [0.4]
    for sigma, drawn, kept in seen:
        assert drawn == pytest.approx(sigma, rel=0.02) and kept == pytest.approx(sigma, rel=0.02)


def test_strength_leads_from_the_given_image_to_any():
    given = torch.full((1, *SHAPE), 0.9)
    near, far = edit(given, strength=0.05), edit(given, strength=1.0, size=4000)
    assert (near - given).abs().max() < 0.05
    assert far.mean().abs() < 0.05 and far.std().item() == pytest.approx(STD, rel=0.05)


STEPS = (2, 1)  # a series of two steps


def edit_series(given: Tensor, *, size: int = 8, solver: str | None = None, **options) -> Tensor:
    sigmas = karras_sigmas(40, 0.002, 80.0)
    return draw(solver, "heun", correlated_denoiser, sigmas, BatchRandom(0, stop=size), STEPS, given=given, **options)


@pytest.mark.parametrize("unknown", [0, 1])
def test_what_a_series_leaves_open_is_of_the_conditional_distribution(unknown):
    """The step that follows a given one, and the one that comes before it: a gap."""
    given = torch.full((1, 2, 1), 0.6)
    given[0, unknown] = torch.nan
    given = given if unknown == 0 else given[:, :1]  # what follows a shorter series need not be said
    drawn = edit_series(given, size=2000, resample=10)[:, :, 0]
    assert (drawn[:, 1 - unknown] == 0.6).all()
    assert drawn[:, unknown].mean().item() == pytest.approx(CORRELATION * 0.6, abs=0.03)
    assert drawn[:, unknown].std().item() == pytest.approx(STD * math.sqrt(1 - CORRELATION**2), rel=0.15)


def test_of_a_series_stays_what_keep_says():
    given = torch.tensor([[[0.1], [0.2]]])
    first, last, end = (edit_series(given, keep=keep) for keep in ("first_half", "last_half", 1))
    assert (first[:, 0] == 0.1).all() and not (first[:, 1] == 0.2).any()
    assert (last[:, 1] == 0.2).all() and not (last[:, 0] == 0.1).any()
    assert (end[:, 0] == 0.2).all()  # its last step, which the other then follows


def test_half_a_request_of_series_is_refused():
    whole, gap = torch.zeros(1, 2, 1), torch.full((1, 2, 1), torch.nan)
    for given, options, words in (
        (whole, {}, "nothing is left to draw: keep fewer of its steps, such as keep=1, or leave cells empty"),
        (torch.zeros(1, 3, 1), {}, "3 given steps are more than the 2 of a window"),
        (whole, {"keep": 3}, "keep=3 is more than the 2 steps"),
        (whole, {"keep": "top_half"}, "keep=top_half is of images; of signals there is first_half"),
        (whole[:, :1], {"solver": "heun"}, "solver=heun has no part in what completes a series"),
        (whole[:, :1], {"strength": 0.5}, "changes a whole window of 2 steps, and 1 steps are given"),
        (gap, {"strength": 0.5}, "this one has gaps"),
        (whole, {"strength": 0.5, "keep": 1}, r"completed \(keep=top_half\) or changed"),
    ):
        with pytest.raises(ValueError, match=words):
            edit_series(given, **options)


@pytest.mark.parametrize("options", [{"keep": "left_half"}, {"strength": 0.5}])
def test_a_sample_does_not_depend_on_its_batch(options):
    sigmas, given = karras_sigmas(5, 0.002, 80.0), torch.randn(3, *SHAPE)

    def rows(indices) -> Tensor:
        return draw(None, "heun", correlated_denoiser, sigmas, SampleRandom(1, indices), SHAPE, given=given, **options)

    torch.testing.assert_close(rows(range(7))[4:], rows(range(4, 7)))


def test_half_a_request_is_refused():
    given = torch.zeros(1, *SHAPE)
    with pytest.raises(ValueError, match=r"strength=0\.5 .* given=FOLDER"):
        edit(None, strength=0.5)
    with pytest.raises(ValueError, match="strength=0 leaves what is given as it is"):
        edit(given, strength=0.0)
    for options in ({}, {"keep": "top_half", "strength": 0.5}):
        with pytest.raises(ValueError, match=r"completed \(keep=top_half\) or changed \(strength=0\.6\)"):
            edit(given, **options)
    with pytest.raises(ValueError, match="resample=3 is for what is drawn around what stays"):
        edit(given, strength=0.5, resample=3)
    with pytest.raises(ValueError, match="solver=heun has no part in keep=top_half"):
        edit(given, keep="top_half", solver="heun")
    with pytest.raises(ValueError, match="churn=2 has no part in keep=top_half"):
        edit(given, keep="top_half", churn=2)
