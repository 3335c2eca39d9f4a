"""Facts about the autoencoder: principal components are its linear case."""

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.ae import AutoEncoder, pca_squared_error
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


def test_only_training_changes_what_is_remembered():
    torch.manual_seed(0)
    model = AutoEncoder(IMAGES, latent_dim=2, width=8)
    batch = Batch({"image": torch.rand(8, 1, 4, 4)}, BatchRandom(0, stop=8))
    before = model.codes.codes.clone()
    model.eval()
    model.loss(batch)
    assert torch.equal(model.codes.codes, before)
    model.train()
    model.loss(batch)
    assert not torch.equal(model.codes.codes, before)


def test_samples_lie_where_the_codes_did():
    """With the codes of one image alone, every sample is its reconstruction."""
    torch.manual_seed(0)
    model = AutoEncoder(IMAGES, latent_dim=2, width=8)
    image = torch.rand(1, 1, 4, 4) * 2 - 1
    batch = Batch({"image": image.expand(8, 1, 4, 4)}, BatchRandom(0, stop=8))
    model.codes.update(model.encoder((batch["image"].flatten(1) + 1) / 2))
    model.eval()
    shown = model.pictures(batch)["reconstruction"]
    samples = model.sample(SampleRandom(0, range(5)))
    torch.testing.assert_close(samples, shown[-1:].expand(5, 1, 4, 4), atol=1e-3, rtol=0)


def test_the_contractive_penalty_is_the_norm_of_the_encoders_jacobian():
    torch.manual_seed(0)
    model = AutoEncoder(POINTS, latent_dim=3, width=8, contraction=0.5)
    x = oblong(1, 3)
    jacobian = torch.autograd.functional.jacobian(model.encoder, x).flatten()
    many = Batch({"points": x.expand(20_000, 6)}, BatchRandom(0, stop=20_000))
    loss, metrics = model.loss(many)
    assert metrics["contraction"].item() == pytest.approx(0.5 * jacobian.square().sum().item(), rel=0.03)
    torch.testing.assert_close(loss, metrics["squared_error"] + metrics["contraction"])


def test_the_smoothness_is_the_norm_of_the_decoders_jacobian_and_leaves_the_encoder_alone():
    torch.manual_seed(0)
    model = AutoEncoder(POINTS, latent_dim=3, width=8, smoothness=0.5)
    code = torch.randn(1, 3)
    jacobian = torch.autograd.functional.jacobian(model.decoder, code).flatten()
    terms = model.penalties(oblong(20_000, 3), code.expand(20_000, 3), BatchRandom(0, stop=20_000))
    assert terms["smoothness"].item() == pytest.approx(0.5 * jacobian.square().sum().item(), rel=0.03)
    gradients = torch.autograd.grad(terms["smoothness"], list(model.parameters()), allow_unused=True)
    reached = {name for (name, _), g in zip(model.named_parameters(), gradients, strict=True) if g is not None}
    assert reached and all(name.startswith("decoder") for name in reached)


def test_a_sparse_code_keeps_its_largest_numbers():
    torch.manual_seed(0)
    model = AutoEncoder(POINTS, latent_dim=5, width=8, active=2)
    x = oblong(50, 1)
    code, dense = model.encode(x), model.encoder(x)
    assert ((code != 0).sum(1) == 2).all()
    assert torch.equal(code[code != 0], dense[code != 0])
    assert (dense.abs().topk(2).values.sum(1) == code.abs().sum(1)).all()


def test_noise_spoils_the_input_and_not_the_target():
    model = AutoEncoder(POINTS, latent_dim=2, width=8, noise=0.3, mask=0.25)
    x = torch.ones(5000, 6)
    spoilt = model.spoil(x, BatchRandom(0, stop=5000))
    assert (spoilt == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert spoilt[spoilt != 0].std().item() == pytest.approx(0.3, abs=0.02)
    batch = Batch({"points": x}, BatchRandom(0, stop=5000))
    clean = model.evaluate(batch)["squared_error"]
    torch.testing.assert_close(clean, (model.decoder(model.encoder(x)) - x).square().sum(1))


def test_the_decays_are_sums_of_squares():
    torch.manual_seed(0)
    model = AutoEncoder(POINTS, latent_dim=2, width=8, code_decay=0.5, decoder_decay=2.0)
    batch = Batch({"points": oblong(20, 1)}, BatchRandom(0, stop=20))
    _, metrics = model.loss(batch)
    torch.testing.assert_close(metrics["code_decay"], 0.5 * model.encode(batch["points"]).square().sum(1).mean())
    total = sum(parameter.square().sum() for parameter in model.decoder.parameters())
    torch.testing.assert_close(metrics["decoder_decay"], 2.0 * total)
