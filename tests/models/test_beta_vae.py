"""Facts about beta-VAE: what beta weighs, and that the total correlation is what it pulls down."""

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.beta_vae import BetaVAE
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))


def batch(number: int = 0, count: int = 64) -> Batch:
    image = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(7)).tanh()
    return Batch({"image": image}, BatchRandom(0, number, stop=count))


def build(**options: object) -> BetaVAE:
    torch.manual_seed(0)
    return BetaVAE(IMAGES, width=8, latent_dim=3, critic_width=16, backbone="mlp", **options)


@pytest.mark.parametrize(
    ("penalty", "weighed"), [("kl", "kl"), ("tc", "total_correlation"), ("factor", "total_correlation")]
)
def test_beta_weighs_its_part_and_one_is_the_bound(penalty, weighed):
    loss, metrics = build(penalty=penalty, beta=5.0).loss(batch())
    torch.testing.assert_close(loss, metrics["negative_elbo"] + 4 * metrics[weighed])
    plain, metrics = build(penalty=penalty, beta=1.0).loss(batch())
    torch.testing.assert_close(plain, metrics["negative_elbo"])


@pytest.mark.parametrize("penalty", ["tc", "factor"])
def test_the_discriminator_is_a_player_of_factor_alone(penalty):
    groups = build(penalty=penalty).parameter_groups()
    assert set(groups) == ({"model", "discriminator"} if penalty == "factor" else {"model"})


def test_a_discriminator_learns_the_total_correlation():
    """Of codes with one coordinate twice, log D / (1 - D) grows; of independent ones it stays at zero."""
    for is_tied in (True, False):
        model = build(penalty="factor")
        optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(1)

        def posterior(x, is_tied=is_tied, generator=generator):
            mu = torch.randn(len(x), 3, generator=generator)
            return (mu[:, :1].expand(-1, 3) if is_tied else mu), torch.full((len(x), 3), -4.0)

        model.posterior = posterior
        for number in range(150):
            optimizer.zero_grad()
            model.discriminator_loss(batch(number))[0].backward()
            optimizer.step()
        told = model.loss(batch(999))[1]["total_correlation"].item()
        assert told > 2 if is_tied else abs(told) < 1


def test_many_draws_tighten_the_bound_to_a_density_that_sums_to_one():
    """Over all images of four black or white pixels; beta weighs the loss alone."""
    torch.manual_seed(0)
    spec = Spec("image", (1, 2, 2), value_range=(-1.0, 1.0), levels=2)
    model = BetaVAE(spec, width=8, latent_dim=2, backbone="mlp", beta=4.0)
    x = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).view(16, 1, 2, 2)
    with torch.no_grad():
        figures = model.evaluate(Batch({"image": x}, BatchRandom(0, stop=16)), importance_samples=3000)
        alone = model.evaluate(Batch({"image": x}, BatchRandom(0, stop=16)))
    assert (-figures["negative_iw_bound_3000"]).exp().sum().item() == pytest.approx(1, abs=0.02)
    assert figures["negative_iw_bound_3000"].mean() < figures["negative_elbo"].mean()
    assert all(torch.equal(figures[key], value) for key, value in alone.items())


def test_noise_is_a_draw_from_what_is_shown_without():
    model = build(likelihood="bernoulli")
    mean, drawn = (model.sample(SampleRandom(0, range(200)), noise=noise) for noise in (False, True))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs((drawn - mean).mean().item()) < 0.06  # 3200 coins


def test_a_traversal_changes_one_coordinate_a_row():
    model = build().eval()
    shown = model.pictures(batch(count=8))
    assert shown["traversal"].shape == (3 * 8, 1, 4, 4)
