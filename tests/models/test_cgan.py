"""Facts about the class-conditional GAN: who is told the class, and that it is obeyed."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from genai_cli.data.base import Batch, Spec
from genai_cli.models.cgan import CGAN
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.nn.regularizers import likeness

SPEC = Spec("image", (1, 16, 16), value_range=(-1.0, 1.0), classes=("dark", "bright", "grey"))
LABEL = torch.tensor([0, 1, 2, 0, 1, 2])
WAYS = list(itertools.product(("projection", "acgan", "concat"), ("both", "cbn", "concat")))
every_way = pytest.mark.parametrize(("conditioning", "generator"), WAYS)


def build(conditioning: str = "projection", generator: str = "both", **options) -> CGAN:
    torch.manual_seed(0)
    return CGAN(SPEC, latent_dim=3, width=4, conditioning=conditioning, generator_conditioning=generator, **options)


def batch(step: int = 0) -> Batch:
    """Images that are all dark, all bright or all grey, by their class."""
    level = torch.tensor([-0.8, 0.8, 0.0])[LABEL][:, None, None, None]
    return Batch({"image": level.expand(-1, 1, 16, 16), "label": LABEL}, BatchRandom(step, stop=6))


@every_way
def test_both_players_are_told_the_class(conditioning, generator):
    model = build(conditioning, generator).eval()
    with torch.no_grad():  # as after some training: a class has a scale and a shift of its own
        for name, parameter in model.named_parameters():
            if name.endswith("own.weight"):
                parameter.normal_()
    latent = torch.randn(1, 3).expand(3, -1)
    images = model.generate(latent, torch.arange(3))
    assert (images[0] - images[1]).abs().max() > 1e-4
    outputs = model.discriminator(images[:1].expand(3, -1, -1, -1), torch.arange(3))
    if conditioning == "acgan":  # it is not told, it tells
        assert outputs.shape == (3, 4)
        torch.testing.assert_close(outputs[0], outputs[1])
    else:
        assert outputs.shape == (3, 1) and outputs.std() > 0


@pytest.mark.parametrize(("generator", "reads_it"), [("both", True), ("cbn", False), ("concat", True)])
def test_the_class_is_joined_to_z_where_it_is_said(generator, reads_it):
    """Without scales and shifts of its own, what tells a class from another is the generator's input."""
    model, latent = build(generator=generator).eval(), torch.randn(1, 3).expand(3, -1)
    with torch.no_grad():
        for name, parameter in model.generator.named_parameters():
            if name.endswith("own.weight"):
                parameter.zero_()
    images = model.generate(latent, torch.arange(3))
    assert torch.equal(images[0], images[1]) != reads_it


def test_the_projection_is_of_features_summed_over_the_image():
    """Eq. 3 of Miyato & Koyama: f(x, y) = v_y^T phi(x) + psi(phi(x)), phi being summed over all places."""
    discriminator = build("projection").discriminator
    image, (one, other) = torch.randn(1, 1, 16, 16), (torch.tensor([0]), torch.tensor([2]))
    phi = discriminator.stages(image).sum((2, 3))
    rows = [row for row in discriminator.projection.parameters() if row.ndim == 2]
    v = rows[0][0] - rows[0][2]
    torch.testing.assert_close(discriminator(image, one) - discriminator(image, other), (phi @ v)[:, None])


@every_way
def test_every_parameter_learns(conditioning, generator):
    model = build(conditioning, generator)
    for group, loss in (("discriminator", model.discriminator_loss), ("generator", model.generator_loss)):
        value, _ = loss(batch())
        for gradient in torch.autograd.grad(value, list(model.parameter_groups()[group])):
            assert gradient.isfinite().all()


def test_the_auxiliary_classifier_judges_data_and_fakes():
    """The loss is that of the game and two cross-entropies; the generator's has one."""
    model = build("acgan")
    found, _ = model.discriminator_loss(batch())
    real, label = batch()["image"], LABEL
    fake = model.generate(BatchRandom(0, stop=6).normal(3), label).detach()
    real_output, fake_output = (model.discriminator(images, label) for images in (real, fake))
    game = F.softplus(-real_output[:, 0]).mean() + F.softplus(fake_output[:, 0]).mean()
    classes = F.cross_entropy(real_output[:, 1:], label) + F.cross_entropy(fake_output[:, 1:], label)
    torch.testing.assert_close(found, game + classes)
    found, metrics = model.generator_loss(batch())
    expected = F.softplus(-fake_output[:, 0]).mean() + F.cross_entropy(fake_output[:, 1:], label)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert 0 <= metrics["fake_accuracy"] <= 1


def test_images_of_a_class_are_held_apart_by_the_weight_of_it():
    """The term is of two z and the same classes, and asks nothing of the discriminator."""
    losses = {}
    for weight in (0.0, 0.5):
        model = build(diversity_weight=weight)
        loss, metrics = model.generator_loss(batch())
        losses[weight] = loss.item()
        assert ("likeness" in metrics) == (weight > 0)
    random = batch().random
    latent, other = random.normal(3), random.normal(3)
    fake, other_fake = (model.generate(z, LABEL) for z in (latent, other))
    expected = likeness(fake, other_fake, latent, other).item()
    assert metrics["likeness"].item() == pytest.approx(expected, rel=1e-4)
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * expected, rel=1e-3)


def test_samples_come_in_turn_or_of_one_class():
    model = build().eval()
    with torch.no_grad():
        model.generator.stages[0].own.weight.normal_()
        in_turn = model.sample(SampleRandom(0, range(6)))
        for label in range(3):
            torch.testing.assert_close(model.sample(SampleRandom(0, range(6)), label=label)[label], in_turn[label])
    with pytest.raises(ValueError, match="label=3 must be below 3"):
        model.sample(SampleRandom(0, range(2)), label=3)


@pytest.mark.parametrize("generator", ["both", "cbn", "concat"])
def test_a_code_decodes_to_the_sample_that_begins_with_it(generator):
    model = build(generator=generator).eval()
    with torch.no_grad():
        latent = model.draw_latent(SampleRandom(0, range(6)))
        assert torch.equal(model.decode(latent), model.sample(SampleRandom(0, range(6))))
        z, label = latent[:, :3], torch.arange(6) % 3
        torch.testing.assert_close(model.decode(latent), model.generate(z, label))


@pytest.mark.parametrize("generator", ["both", "cbn", "concat"])
def test_between_two_classes_lie_images_of_neither(generator):
    """Both have a share, so the image changes little by little; of whole classes it would leap."""
    model = build(generator=generator).eval()
    with torch.no_grad():
        one, other = model.draw_latent(SampleRandom(0, range(1))), model.draw_latent(SampleRandom(0, range(1)))
        other[:, 3:] = other[:, 3:].roll(1, dims=1)
        share = torch.linspace(0, 1, 41)[:, None]
        walk = model.decode(torch.lerp(one, other, share))
    steps, whole = (walk[1:] - walk[:-1]).flatten(1).norm(dim=1), (walk[-1] - walk[0]).norm()
    assert 0 < steps.max() < 0.1 * whole


def test_data_without_classes_are_refused():
    with pytest.raises(ValueError, match=r"needs data with classes.*model=dcgan"):
        CGAN(Spec("image", (1, 16, 16), value_range=(-1.0, 1.0)))
