"""Facts about the two-player game between perceptrons."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.data.toy2d import Toy2d
from genai_cli.models.gan import GAN
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(0.0, 1.0))
POINTS = Spec("points", (2,))


def image_batch(size: int = 6) -> Batch:
    image = torch.rand(size, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return Batch({"image": image}, BatchRandom(0, stop=size))


class Turns:
    """Takes the optimizer's steps as the engine would, with the optimizer of conf/model/gan.yaml."""

    def __init__(self, model: GAN, data: Tensor, batch_size: int):
        self.data, self.batch_size = data, batch_size
        self.groups = {name: list(members) for name, members in model.parameter_groups().items()}
        self.optimizers = {
            name: torch.optim.Adam(members, lr=1e-3, betas=(0.5, 0.999)) for name, members in self.groups.items()
        }
        self.taken = 0

    number = 0

    def minimize(self, group: str, loss, *, batch: int = 0) -> None:
        self.taken += 1
        random = BatchRandom(0, self.taken, stop=self.batch_size)
        points = self.data[random.integers(len(self.data))]
        value, _ = loss(Batch({"points": points}, random))
        self.optimizers[group].zero_grad()
        value.backward(inputs=self.groups[group])
        self.optimizers[group].step()


def test_one_pass_over_both_is_the_two_player_loss():
    torch.manual_seed(0)
    model = GAN(IMAGES, latent_dim=3, width=8)
    value, metrics = model.discriminator_loss(image_batch())
    real = model.discriminator(image_batch()["image"])
    fake = model.discriminator(model.generator(BatchRandom(0, stop=6)))
    torch.testing.assert_close(value, -F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean())
    torch.testing.assert_close(metrics["real_probability"], real.sigmoid().mean())
    torch.testing.assert_close(metrics["fake_probability"], fake.sigmoid().mean())


def test_the_discriminators_turn_costs_the_generator_nothing():
    model = GAN(IMAGES, latent_dim=3, width=8)
    value, _ = model.discriminator_loss(image_batch())
    gradients = torch.autograd.grad(value, list(model.generator.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_the_two_losses_of_the_generator_are_two_forms_of_one_probability():
    torch.manual_seed(0)
    saturating = GAN(IMAGES, latent_dim=3, width=8, loss="minimax")
    other = GAN(IMAGES, latent_dim=3, width=8)
    other.load_state_dict(saturating.state_dict())
    logits = other.discriminator(other.generator(BatchRandom(0, stop=6)))
    torch.testing.assert_close(saturating.generator_loss(image_batch())[0], F.logsigmoid(-logits).mean())
    torch.testing.assert_close(other.generator_loss(image_batch())[0], -F.logsigmoid(logits).mean())


def test_stochastic_generator_adds_noise_of_its_own_size():
    model = GAN(POINTS, latent_dim=3, width=8, generator="stochastic")
    head = model.generator.network[-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([5.0, -1.0, 3 + math.log(math.e - 1), 3.0]))  # sigma = 1 and log 2
        samples = model.sample(BatchRandom(0, stop=20_000))
    torch.testing.assert_close(samples.mean(0), torch.tensor([5.0, -1.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(samples.std(0), torch.tensor([1.0, math.log(2)]), atol=0.02, rtol=0)


@pytest.mark.parametrize("generator", ["deterministic", "stochastic"])
def test_no_sample_leaves_the_range(generator):
    torch.manual_seed(0)
    model = GAN(IMAGES, latent_dim=3, width=8, generator=generator)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.mul_(30)
        samples = model.sample(SampleRandom(0, range(64)))
    assert samples.shape == (64, 1, 4, 4)
    assert samples.min() >= 0 and samples.max() <= 1
    assert samples.std() > 0.3


def test_it_finds_all_of_eight_gaussians():
    """Most samples lie near one of the centres, which are 1.53 apart, and each centre has its share."""
    torch.manual_seed(0)
    data = Toy2d(shape="eight_gaussians").load("train").tensors["points"]
    model = GAN(POINTS, latent_dim=8, width=64)
    turns = Turns(model, data, batch_size=128)
    for _ in range(1000):
        model.train_step(turns)
    with torch.no_grad():
        samples = model.sample(SampleRandom(0, range(2000)))
    angle = torch.arange(8) * (math.pi / 4)
    centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    distance, nearest = torch.cdist(samples, centres).min(1)
    counts = nearest[distance < 0.5].bincount(minlength=8)
    assert counts.min() > 60, counts
    assert counts.sum() > 1100, counts
