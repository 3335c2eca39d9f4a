"""Facts about Wasserstein and adversarial autoencoders: codes as a whole become the prior, in either form."""

import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.wae import WAE
from genai_cli.nn.discrepancy import mmd
from genai_cli.nn.random import BatchRandom, SampleRandom

POINTS = Spec("points", (2,))


def points(count: int, seed: int) -> torch.Tensor:
    """Two far-apart clusters."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.randint(2, (count, 1), generator=generator) * 2.0 - 1
    return 2 * side + 0.3 * torch.randn(count, 2, generator=generator)


class Player:
    """A `Step` that updates every group with Adam."""

    number = 0

    def __init__(self, model: WAE):
        self.optimizers = {
            group: torch.optim.Adam(list(parameters), lr=2e-3, betas=(0.5, 0.999))
            for group, parameters in model.parameter_groups().items()
        }
        self.batch = None

    def minimize(self, group, loss):
        self.optimizers[group].zero_grad()
        value, _ = loss(self.batch)
        value.backward()
        self.optimizers[group].step()


def test_codes_of_two_clusters_become_one_gaussian():
    torch.manual_seed(0)
    model = WAE(POINTS, latent_dim=2, width=32, weight=10.0)
    prior = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
    before = mmd(model.encode(points(1000, 99)), prior).item()
    player = Player(model)
    for number in range(300):
        player.batch = Batch({"points": points(128, number)}, BatchRandom(0, number, stop=128))
        model.train_step(player)
    assert mmd(model.encode(points(1000, 99)), prior).item() < 0.1 * before


def test_a_discriminator_that_has_learned_pushes_codes_towards_the_prior():
    torch.manual_seed(0)
    model = WAE(POINTS, latent_dim=2, width=32, divergence="adversarial", weight=1000.0, critic_width=32)
    torch.nn.init.constant_(model.encoder[-1].bias, 3.0)  # codes far from the origin
    player = Player(model)
    batches = [Batch({"points": points(128, number)}, BatchRandom(0, number, stop=128)) for number in range(100)]
    for player.batch in batches:
        player.minimize("discriminator", model.discriminator_loss)
    _, metrics = model.discriminator_loss(batches[0])
    assert metrics["prior_probability"] > 0.9 > 0.1 > metrics["code_probability"]
    before = model.encode(points(1000, 99)).mean(0)
    for player.batch in batches[:20]:
        player.minimize("autoencoder", model.autoencoder_loss)
    after = model.encode(points(1000, 99)).mean(0)
    assert (after < before - 0.2).all()


def test_samples_come_from_the_prior_or_from_the_codes():
    torch.manual_seed(0)
    model = WAE(POINTS, latent_dim=2, width=8)
    for number in range(3):
        model.autoencoder_loss(Batch({"points": points(64, number)}, BatchRandom(0, number, stop=64)))
    model.eval()
    torch.testing.assert_close(
        model.sample(SampleRandom(0, range(5))), model.decode(model.draw_latent(SampleRandom(0, range(5))))
    )
    assert not torch.equal(
        model.sample(SampleRandom(0, range(5)), latent="gmm"), model.sample(SampleRandom(0, range(5)))
    )
