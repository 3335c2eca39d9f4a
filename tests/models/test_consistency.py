"""Facts about consistency models that the contract of all models does not state."""

import functools

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.consistency import Consistency
from genai_cli.models.ddpm import DDPM
from genai_cli.models.edm import EDM
from genai_cli.nn.random import BatchRandom, SampleRandom

POINT = Spec("points", (1,))
IMAGE = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("a", "b"))
MEAN, STD = 0.7, 0.5  # of Gaussian data


def exact(x: Tensor, sigma: Tensor, label: None = None, *, sigma_min: float = 0.002) -> Tensor:
    """Of data N(MEAN, STD^2): the flow keeps every quantile, from sigma down to sigma_min."""
    sigma = torch.as_tensor(sigma).expand(len(x))[:, None]
    return MEAN + ((STD**2 + sigma_min**2) / (STD**2 + sigma**2)).sqrt() * (x - MEAN)


def gaussian_edm() -> EDM:
    """A teacher whose denoiser is that of N(MEAN, STD^2)."""
    teacher = EDM(POINT)
    teacher.denoise = lambda x, sigma, label=None: MEAN + STD**2 / (STD**2 + sigma.view(-1, 1) ** 2) * (x - MEAN)
    return teacher


def gaussian_batch(step: int, size: int) -> Batch:
    random = BatchRandom(step, stop=size)
    return Batch({"points": MEAN + STD * random.normal(1)}, random)


@pytest.mark.parametrize("spec", [POINT, IMAGE])
def test_at_the_lowest_level_it_is_the_identity_whatever_the_network_is(spec):
    model = Consistency(spec, **Consistency.tiny)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(5, *spec.shape)
    torch.testing.assert_close(model.end_of_path(x, model.sigma_min), x, atol=1e-5, rtol=0)
    assert (model.end_of_path(x, 1.0) - x).abs().max() > 0.1


def test_levels_double_on_schedule_up_to_the_last():
    model = Consistency(POINT, first_intervals=10, final_intervals=50, double_every=100, **Consistency.tiny)
    assert [model.intervals_at(step) for step in (0, 99, 100, 250, 300, 10**9)] == [10, 10, 20, 40, 50, 50]


def test_training_uses_the_levels_of_its_step():
    seen = []

    class Step:
        number = 250

        def minimize(self, group: str, loss: functools.partial) -> None:
            seen.append((group, loss.keywords))

    Consistency(POINT, double_every=100, **Consistency.tiny).train_step(Step())
    assert seen == [("model", {"intervals": 40})]


def test_neighbouring_levels_are_drawn_by_their_share_of_a_normal():
    model = Consistency(POINT, **Consistency.tiny)
    quantile = (torch.arange(40_000) + 0.5) / 40_000
    higher, lower = model._draw_levels(quantile, 18)
    assert (
        (higher > lower).all()
        and lower.min().item() == pytest.approx(0.002)
        and higher.max().item() == pytest.approx(80)
    )
    levels = torch.unique(torch.cat([lower, higher]))
    assert len(levels) == 19
    below = torch.special.ndtr((levels.log() - model.noise_mean) / model.noise_std)
    share = below.diff() / (below[-1] - below[0])
    found = torch.stack([(lower == level).float().mean() for level in levels[:-1]])
    torch.testing.assert_close(found, share, atol=1e-4, rtol=0)


def test_the_loss_is_the_pseudo_huber_distance_for_the_width_of_the_interval():
    """lambda d(f, f') = (sqrt(|f - f'|^2 + c^2) - c) / Delta sigma, of estimates that rise by 0.3 a unit of sigma."""
    model = Consistency(Spec("points", (2,)), sigma_min=1.0, sigma_max=5.0, huber=0.8, **Consistency.tiny)
    model.end_of_path = lambda x, sigma, label=None: 0.3 * sigma[:, None].expand_as(x)
    loss, _ = model.loss(Batch({"points": torch.zeros(3, 2)}, BatchRandom(0, stop=3)), intervals=1)
    expected = ((1.2**2 + 0.8**2) ** 0.5 - 0.8) / 4.0  # a coordinate
    assert loss.item() == pytest.approx(expected)


def test_the_noise_between_two_jumps_leaves_what_the_lowest_level_has():
    """Algorithm 1: x_eps holds noise of sigma_min already, so sqrt(sigma^2 - sigma_min^2) is added."""
    model = Consistency(POINT, sigma_min=0.6, sigma_max=4.0, **Consistency.tiny)
    seen: dict[float, Tensor] = {}

    def denoise(x: Tensor, sigma: float, labels: None) -> Tensor:
        seen[sigma] = x
        return torch.zeros_like(x)

    model.end_of_path = denoise
    model.sample(BatchRandom(0, stop=20_000), steps=3)
    first, *others = seen
    assert first == pytest.approx(4.0) and len(others) == 2
    for sigma in others:
        assert seen[sigma].std().item() == pytest.approx((sigma**2 - 0.6**2) ** 0.5, rel=0.02)


def test_a_teacher_without_classes_is_told_none():
    model, told = Consistency(IMAGE, condition="label", **Consistency.tiny), []
    teacher = EDM(IMAGE, **EDM.tiny)
    teacher.denoise = lambda x, sigma, label=None: told.append(label) or x
    model.learn_from(teacher)
    random = BatchRandom(0, stop=2)
    model.loss(Batch({"image": random.normal(1, 8, 8), "label": torch.tensor([0, 1])}, random))
    assert told == [None, None]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_samples_of_the_exact_function_are_the_data_in_any_number_of_steps(steps):
    model = Consistency(POINT, **Consistency.tiny)
    model.end_of_path = exact
    samples = model.sample(BatchRandom(0, stop=20_000), steps=steps)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(STD, rel=0.03)


def test_the_exact_function_has_no_distillation_loss():
    """Along the teacher's flow, neighbouring estimates agree; those of a function off by a tenth do not."""
    model = Consistency(POINT, huber=1e-6, **Consistency.tiny)
    model.learn_from(gaussian_edm())
    losses = {}
    for error in (0.0, 0.1):
        model.end_of_path = lambda x, sigma, label=None, error=error: exact(x, sigma * (1 + error))
        losses[error] = model.loss(gaussian_batch(0, 2000), intervals=300)[0].item()
    assert losses[0.0] < 0.02 * losses[0.1]


def test_training_finds_the_exact_function():
    """From data alone, at the highest noise level, where it begins as a constant."""
    torch.manual_seed(0)
    model = Consistency(POINT, width=16, sigma_max=8.0, noise_mean=0.5, huber=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    x = MEAN + torch.linspace(-2, 2, 41)[:, None] * (STD**2 + 8.0**2) ** 0.5
    before = (model.end_of_path(x, 8.0) - exact(x, 8.0)).abs().mean().item()
    for step in range(120):
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * (1 - step / 120)
        optimizer.zero_grad()
        model.loss(gaussian_batch(step, 256), intervals=6)[0].backward()
        optimizer.step()
    after = (model.end_of_path(x, 8.0) - exact(x, 8.0)).abs().mean().item()
    assert after < 0.22 < 0.35 * before  # six levels are few


def test_given_images_are_kept_or_changed():
    model = Consistency(IMAGE, condition="label", **Consistency.tiny).eval()
    given = torch.rand(3, 1, 8, 8) * 2 - 1
    kept = model.sample(SampleRandom(0, range(3)), steps=3, given=given, keep="top_half", label=1)
    assert torch.equal(kept[:, :, :4], given[:, :, :4]) and not torch.equal(kept[:, :, 4:], given[:, :, 4:])
    near, far = (
        model.sample(SampleRandom(0, range(3)), steps=30, given=given, strength=strength) for strength in (0.05, 1.0)
    )
    assert (near - given).abs().mean() < (far - given).abs().mean()


def test_it_is_no_guide_of_a_denoiser():
    guide = Consistency(POINT, **Consistency.tiny)
    with pytest.raises(ValueError, match="does not denoise"):
        EDM(POINT, **EDM.tiny).sample(SampleRandom(0, range(2)), guide=guide, guidance=2.0)


def test_senseless_requests_are_refused():
    model = Consistency(IMAGE, **Consistency.tiny)
    with pytest.raises(ValueError, match=r"label=1 needs a model that was trained with model\.condition=label"):
        model.sample(SampleRandom(0, range(2)), label=1)
    with pytest.raises(ValueError, match=r"strength=0\.5 .*given=FOLDER"):
        model.sample(SampleRandom(0, range(2)), strength=0.5)
    with pytest.raises(ValueError, match="is no run of model=edm"):
        model.learn_from(DDPM(IMAGE, **DDPM.tiny))
    with pytest.raises(ValueError, match="is no run of model=edm"):  # where a path ends is no mean of x_0
        model.learn_from(Consistency(IMAGE, **Consistency.tiny))
    with pytest.raises(ValueError, match=r"add model\.condition=label"):
        model.learn_from(EDM(IMAGE, condition="label", **EDM.tiny))
