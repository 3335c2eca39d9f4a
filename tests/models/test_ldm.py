"""Facts about latent diffusion (preset `ldm`, `ddpm` on `dataset=latents`): a linear autoencoder of Gaussian data, its
latents Gaussian, so that the best denoiser, the least loss and the law of the decoded samples are known."""

from pathlib import Path

import pytest
import torch

from genai_cli.data.base import Batch, Spec, TensorSplit
from genai_cli.data.first_stage import CodeDecoder, FirstStage, scale_of, scaled
from genai_cli.engine.figures import held_out_figures
from genai_cli.models.ddpm import DDPM
from genai_cli.nn.random import BatchRandom, SampleRandom

CPU = torch.device("cpu")
AXES = torch.tensor([[2.0, 0.0], [0.0, 0.5], [1.0, 1.0]])  # x = AXES z + OFFSET, z of variance VARIANCE
OFFSET = torch.tensor([1.0, -2.0, 3.0])
VARIANCE = torch.tensor([9.0, 1.0])


class Linear:
    """The linear autoencoder of three numbers by two."""

    spec = Spec("points", (3,))

    def latents_of(self, x):
        return (x - OFFSET) @ torch.linalg.pinv(AXES).T

    def decode_latents(self, latents):
        return latents @ AXES.T + OFFSET


def gaussian(count: int, seed: int) -> torch.Tensor:
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) * VARIANCE.sqrt()
    return z @ AXES.T + OFFSET


@pytest.fixture(scope="module")
def trained() -> tuple[DDPM, torch.Tensor]:
    """A model of the scaled latents, and their variances, which sum to 2."""
    latents = Linear().latents_of(gaussian(20_000, 0))
    record = scale_of(latents)
    x0 = scaled(latents, record)
    torch.manual_seed(0)
    model = DDPM(Spec("latents", (2,), first_stage={"step": 1, "sha256": "", **record}), width=32, levels=1)
    stage = FirstStage(Path(), "linear", Linear(), None, 1, "", CPU)
    model.code_decoder = CodeDecoder(stage, model.spec)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for step in range(300):
        rows = torch.arange(128) + 128 * step
        loss, _ = model.loss(Batch({"latent": x0[rows % len(x0)]}, BatchRandom(0, step, stop=128)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return model.eval(), VARIANCE / record["deviation"] ** 2


def test_the_loss_comes_to_the_least_there_is(trained):
    """Var(v | x_t) = s^2 / (alpha^2 s^2 + sigma^2) for a coordinate of variance s^2: 1 where that is 1."""
    model, variance = trained
    assert variance.mean().item() == pytest.approx(1, abs=0.03)
    alpha, sigma = model.alpha[1:, None], model.sigma[1:, None]  # (T, 1)
    least = (variance / (alpha**2 * variance + sigma**2)).mean().item()
    latents = scaled(Linear().latents_of(gaussian(8000, 1)), model.spec.first_stage)
    split = TensorSplit({"latent": latents}, lambda rows: rows)
    found = held_out_figures(model, split, seed=0, batch_size=2000, device=CPU)["unweighted_loss"]
    assert least < 0.9  # a model that knew nothing of the variances would have 1
    assert found.mean == pytest.approx(least, abs=0.02 + 3 * found.standard_error)


@torch.no_grad()
def test_the_denoiser_is_the_posterior_mean(trained):
    """E[x_0 | x] = x s^2 / (s^2 + sigma^2)."""
    model, variance = trained
    for sigma in (0.3, 1.0, 3.0):
        x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(2)) * (variance + sigma**2).sqrt()
        error = model.denoise(x, sigma) - x * variance / (variance + sigma**2)
        assert error.square().mean().sqrt() < 0.1, sigma


@torch.no_grad()
def test_decoded_samples_have_the_law_of_the_data(trained):
    model, _ = trained
    drawn = model.shown(model.sample(SampleRandom(0, range(4000)), steps=25))
    assert drawn.shape == (4000, 3) and model.shown_spec == Linear.spec
    covariance = AXES @ torch.diag(VARIANCE) @ AXES.T
    torch.testing.assert_close(drawn.mean(0), OFFSET, atol=0.4, rtol=0)
    assert (drawn.T.cov() - covariance).norm() < 0.12 * covariance.norm()


def test_a_map_of_latents_goes_through_a_unet_and_a_vector_through_an_mlp():
    for shape, name in (((4, 7, 7), "UNet"), ((4,), "DenoiserMLP")):
        model = DDPM(Spec("latents", shape), width=8, levels=1)
        assert type(model.network.backbone).__name__ == name
        assert model.sample(SampleRandom(0, range(2)), steps=2).shape == (2, *shape)
    with pytest.raises(ValueError, match=r"model\.backbone=unet cannot take latents: use model\.backbone=mlp"):
        DDPM(Spec("latents", (4,)), backbone="unet")
