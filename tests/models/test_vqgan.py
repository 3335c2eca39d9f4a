"""Facts about VQGAN, a VQ-VAE with a discriminator (Esser et al. 2021, arXiv:2012.09841): who moves what, and when."""

import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.vqvae import VQVAE
from genai_cli.nn.random import BatchRandom

IMAGES = Spec("image", (1, 8, 8), value_range=(-1.0, 1.0))
TINY = {"width": 8, "num_codes": 16, "prior_width": 8, "prior_depth": 1, "prior_heads": 2}


def images() -> Batch:
    image = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(7)).tanh()
    return Batch({"image": image}, BatchRandom(0, stop=6))


def build(**options: object) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(IMAGES, **TINY, adversarial=0.5, **options)


class Descent:
    """A step that moves each group along its gradient, and remembers what was minimised."""

    def __init__(self, model: VQVAE, number: int):
        self.model, self.number = model, number
        self.players: list[str] = []

    def minimize(self, group: str, loss, *, batch: int = 0) -> None:
        self.players.append(group)
        parameters = list(self.model.parameter_groups()[group])
        gradients = torch.autograd.grad(loss(images())[0], parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 1e-3 * gradient


def autoencoder_of(model: VQVAE) -> dict[str, Tensor]:
    """All that stands in the model beside its discriminator and its prior, copied."""
    return {
        name: value.clone()
        for name, value in model.state_dict().items()
        if not name.startswith(("discriminator", "prior"))
    }


def test_before_its_start_the_discriminator_learns_and_does_not_act():
    """Two that differ in it alone stay the same autoencoder to the last digit, until the step from which it counts."""
    one, other = build(adversarial_start=2), build(adversarial_start=2)
    nn.init.normal_(other.discriminator[-1].weight, std=1.0)
    for number in range(3):
        before = [value.clone() for value in one.discriminator.parameters()]
        for model in (one, other):
            step = Descent(model, number)
            model.train_step(step)
            assert step.players == ["autoencoder", "discriminator", "prior"]
        assert not torch.equal(before[-2], list(one.discriminator.parameters())[-2])
        same = [torch.equal(*pair) for pair in zip(*(autoencoder_of(m).values() for m in (one, other)), strict=True)]
        assert all(same) == (number < 2)


def test_from_its_start_the_autoencoder_also_plays_against_it():
    """w E -log D(x~), beside the errors, which stay what they were."""
    with_game, metrics = build().autoencoder_loss(images(), adversarial=0.5)
    without, plain = build().autoencoder_loss(images(), adversarial=0.0)
    model = build().train()
    x = (images()["image"] + 1) / 2
    verdict = model.discriminator(model.reconstruct(model.quantize(x, learn=True).vectors)).sigmoid()
    torch.testing.assert_close(metrics["adversarial"], -verdict.log().mean())
    torch.testing.assert_close(with_game - without, 0.5 * metrics["adversarial"])
    assert "adversarial" not in plain


def test_the_discriminators_step_moves_nothing_of_the_autoencoder():
    """No weight of it gets a gradient, and the codebook, which follows what is quantised, stays where it is."""
    model = build().train()
    model.autoencoder_loss(images(), adversarial=0.5)  # the codebook has begun
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.discriminator_loss(images())[0].backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if name.startswith("discriminator")}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    Descent(model, 0).minimize("discriminator", model.discriminator_loss)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("discriminator") for name in moved)


class Verdicts(nn.Module):
    """Three quarters and a half for the two patches of data, a fifth for each of reconstructions."""

    def forward(self, x: Tensor) -> Tensor:
        half = len(x) // 2
        real = torch.tensor([[0.75, 0.5]]).expand(half, 2)
        return torch.logit(torch.cat([real, torch.full((half, 2), 0.2)]))[:, None, None]  # (B, 1, 1, 2)


def test_the_discriminators_loss_is_the_papers():
    """-[log D(x) + log(1 - D(x^))] (Eq. 5, which D maximises), a mean over patches: -(ln 3/4 + ln 1/2) / 2 - ln 4/5."""
    model = build()
    model.discriminator = Verdicts()
    loss, metrics = model.discriminator_loss(images())
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2 - math.log(0.8), rel=1e-6)
    assert loss.item() == pytest.approx(0.71356, abs=1e-5)
    assert metrics["real_probability"].item() == pytest.approx(0.625)
    assert metrics["fake_probability"].item() == pytest.approx(0.2)
