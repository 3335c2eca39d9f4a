"""Facts about the autoencoder: principal components are its linear case."""

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.ae import AutoEncoder, RunningGaussian, pca_squared_error
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))
POINTS = Spec("points", (6,))


def oblong(count: int, seed: int) -> Tensor:
    """(count, 6) from a Gaussian of unlike axes, away from zero."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    return torch.randn(count, 6, generator=generator) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.3, 0.1]) @ turn + 1


@pytest.mark.parametrize("num_components", [1, 3, 6])
def test_pca_is_the_truncated_singular_value_decomposition(num_components):
    train, test = oblong(500, 1).double(), oblong(300, 2).double()
    _, _, axes = torch.linalg.svd(train - train.mean(0), full_matrices=False)
    kept = axes[:num_components]  # (K, 6)
    expected = (test - train.mean(0) - (test - train.mean(0)) @ kept.T @ kept).square().sum(1).mean().item()
    assert pca_squared_error(train, test, num_components) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_linear_autoencoder_learns_the_principal_components():
    torch.manual_seed(0)
    data = oblong(500, 1)
    model = AutoEncoder(POINTS, latent_dim=2, width=8)
    model.encoder, model.decoder = nn.Linear(6, 2), nn.Linear(2, 6)
    batch = Batch({"points": data}, BatchRandom(0, stop=500))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value, _ = model.loss(batch)
        value.backward()
        return value

    optimizer.step(closure)
    baseline = model.baselines(data, data)["squared_error_pca2"]
    assert model.evaluate(batch)["squared_error"].mean().item() == pytest.approx(baseline, rel=1e-3)


def test_errors_are_sums_over_pixels_of_unit_range():
    model = AutoEncoder(IMAGES, latent_dim=2, width=8)
    nn.init.zeros_(model.decoder[-1].weight)
    nn.init.zeros_(model.decoder[-1].bias)  # every pixel 0.5
    image = torch.ones(3, 1, 4, 4)
    image[1:] = -1
    error = model.evaluate(Batch({"image": image}, BatchRandom(0, stop=3)))["squared_error"]
    torch.testing.assert_close(error, torch.full((3,), 16 * 0.25))
    black, white = -torch.ones(4, 1, 4, 4), torch.ones(4, 1, 4, 4)
    assert model.baselines(torch.cat([black, white]), white)["squared_error_pca2"] == pytest.approx(0, abs=1e-9)


def test_codes_are_remembered_as_a_gaussian():
    codes = RunningGaussian(6, momentum=0.1)
    data = oblong(2000, 3)
    for _ in range(200):
        codes.update(data)
    torch.testing.assert_close(codes.mean, data.mean(0))
    torch.testing.assert_close(codes.covariance, data.T.cov(correction=0))
    drawn = codes.draw(BatchRandom(0, stop=100_000))
    torch.testing.assert_close(drawn.mean(0), data.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), data.T.cov(), atol=0.1, rtol=0)


def test_only_training_changes_what_is_remembered():
    torch.manual_seed(0)
    model = AutoEncoder(IMAGES, latent_dim=2, width=8)
    batch = Batch({"image": torch.rand(8, 1, 4, 4)}, BatchRandom(0, stop=8))
    before = model.codes.mean.clone()
    model.eval()
    model.loss(batch)
    assert torch.equal(model.codes.mean, before)
    model.train()
    model.loss(batch)
    assert not torch.equal(model.codes.mean, before)


def test_samples_lie_where_the_codes_did():
    """With the codes of one image alone, every sample is its reconstruction."""
    torch.manual_seed(0)
    model = AutoEncoder(IMAGES, latent_dim=2, width=8)
    image = torch.rand(1, 1, 4, 4) * 2 - 1
    batch = Batch({"image": image.expand(8, 1, 4, 4)}, BatchRandom(0, stop=8))
    model.codes.momentum = 0.1
    for _ in range(200):
        model.codes.update(model.encoder((batch["image"].flatten(1) + 1) / 2).detach())
    model.eval()
    shown = model.pictures(batch)["reconstruction"]
    samples = model.sample(SampleRandom(0, range(5)))
    torch.testing.assert_close(samples, shown[-1:].expand(5, 1, 4, 4), atol=1e-3, rtol=0)
