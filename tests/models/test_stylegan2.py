"""Facts about styles, paths and truncation."""

import math

import pytest
import torch
import torch.nn.functional as F

from genai_cli.data.base import Batch, Spec
from genai_cli.models.stylegan2 import StyleGAN2, mix
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.nn.stylegan import Mapping, ModulatedConv, ScaledConv, ScaledLinear, deviation_map

SPEC = Spec("image", (1, 28, 28), value_range=(-1.0, 1.0))


def build(**options) -> StyleGAN2:
    torch.manual_seed(0)
    return StyleGAN2(SPEC, **{"latent_dim": 4, "width": 2, "mapping_depth": 2, **options})


@pytest.mark.parametrize("demodulates", [True, False])
def test_scaling_channels_is_a_convolution_with_weights_for_every_image(demodulates):
    """Eq. 1 and 3 as they are written: modulated and demodulated weights, one convolution an image."""
    torch.manual_seed(0)
    layer = ModulatedConv(3, 5, 3, latent_dim=4, demodulates=demodulates)
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 4)
    style = layer.style(w)
    for i in range(2):
        weight = layer.scale * layer.weight * style[i, None, :, None, None]
        if demodulates:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(layer(x, w)[i], F.conv2d(x[i : i + 1], weight, padding=1)[0], atol=1e-5, rtol=1e-4)


def test_demodulation_keeps_unit_deviation_whatever_the_style():
    torch.manual_seed(0)
    layer = ModulatedConv(32, 8, 3, latent_dim=4)
    x = torch.randn(4, 32, 40, 40)
    out = layer(x, 5 * torch.randn(4, 4))[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(out.std((2, 3)), torch.ones(4, 8), atol=0.1, rtol=0)


def test_scaled_layers_begin_with_unit_gain():
    torch.manual_seed(0)
    linear, conv = ScaledLinear(200, 300, rate=0.01), ScaledConv(50, 60, 3)
    assert linear(torch.randn(500, 200)).std().item() == pytest.approx(1, abs=0.05)
    assert conv(torch.randn(4, 50, 20, 20))[:, :, 1:-1, 1:-1].std().item() == pytest.approx(1, abs=0.05)


def test_the_length_of_z_does_not_matter():
    mapping, z = Mapping(8, 2), torch.randn(3, 8)
    torch.testing.assert_close(mapping(z), mapping(7 * z))


def test_path_lengths_of_a_linear_generator_are_those_of_its_matrix():
    """For G(w) = A w, J^T y = A^T y; with one latent for each of L layers, the mean over layers of its square."""
    model = build()
    matrix = torch.randn(4, 28 * 28)
    styles = torch.randn(3, 5, 4, requires_grad=True)
    fake = (styles[:, 0] @ matrix).view(3, 1, 28, 28)
    noise = BatchRandom(2, stop=3).normal(1, 28, 28).flatten(1) / 28
    expected = (noise @ matrix.t()).norm(dim=1) / math.sqrt(5)
    penalty, length = model.path_penalty(fake, styles, BatchRandom(2, stop=3))
    torch.testing.assert_close(length, expected.mean(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.mean_path, expected.mean(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(penalty, expected.var(correction=0), atol=1e-4, rtol=1e-3)
    model.path_penalty(2 * fake, styles, BatchRandom(2, stop=3))
    torch.testing.assert_close(model.mean_path, 1.01 * expected.mean(), atol=1e-5, rtol=1e-4)


def test_a_lazy_regulariser_weighs_as_many_times_as_much():
    model = build(path_weight=3.0, path_every=5).eval()
    model.mean_path.fill_(2.0)
    (value, metrics), (plain, _) = (
        model.generator_loss(Batch({"image": torch.ones(4, 1, 28, 28)}, BatchRandom(0, stop=4)), regularize=is_due)
        for is_due in (True, False)
    )
    assert metrics["path_penalty"] > 0.1
    torch.testing.assert_close(value - plain, 15 * metrics["path_penalty"])


def test_regularisers_come_at_their_intervals():
    model = build(path_every=3, regularizer_every=2)

    class Turns:
        def __init__(self, number: int):
            self.number, self.metrics = number, {}

        def minimize(self, group, loss, *, batch: int = 0):
            rows = Batch({"image": torch.rand(4, 1, 28, 28)}, BatchRandom(0, stop=4))
            self.metrics[group] = set(loss(rows)[1])

    for number in range(7):
        turns = Turns(number)
        model.train_step(turns)
        assert ("path_penalty" in turns.metrics["generator"]) == (number % 3 == 0)
        assert ("penalty" in turns.metrics["discriminator"]) == (number % 2 == 0)


def test_only_what_is_dear_waits_for_its_interval():
    every = {kind: build(regularizer=kind).game.every for kind in ("none", "gp", "r1", "r2", "r1r2", "lecam")}
    assert every == {"none": 1, "gp": 16, "r1": 16, "r2": 16, "r1r2": 16, "lecam": 1}
    assert build(regularizer="lecam", regularizer_every=4).game.every == 4


@pytest.mark.parametrize(("mixing", "kinds"), [(0.0, {1}), (1.0, {2})])
def test_an_image_has_one_latent_or_two_that_change_over_once(mixing, kinds):
    model = build(mixing=mixing)
    styles, latents = model.draw_styles(BatchRandom(0, stop=200))
    torch.testing.assert_close(styles, model.mapping(latents.flatten(0, 1)).view_as(styles))
    changes = (styles[:, 1:] != styles[:, :-1]).any(2).sum(1)  # (B,)
    assert {int(count) + 1 for count in changes.unique()} == kinds
    if mixing:
        crossover = (styles[:, 1:] != styles[:, :-1]).any(2).float().argmax(1)
        assert crossover.bincount(minlength=styles.shape[1] - 1).min() > 20  # at any layer


def test_truncation_draws_towards_the_mean_image():
    model = build().train()
    for step in range(30):
        model.draw_styles(BatchRandom(step, stop=64))
    model.eval()
    with torch.no_grad():
        mean = model.generate(model._to_every_layer(model.mean_w[None]), None)
        whole, half, none = (model.sample(SampleRandom(0, range(20)), truncation=t) for t in (1.0, 0.5, 0.0))
    # The strength of the noise begins at zero.
    torch.testing.assert_close(none, mean.expand(20, -1, -1, -1), atol=1e-5, rtol=1e-4)
    assert half.std(0).mean() < whole.std(0).mean()


def sampled(model: StyleGAN2, **options) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().sample(SampleRandom(0, range(6)), **options)


def noisy() -> StyleGAN2:
    model = build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return model


def test_coarse_styles_are_of_the_first_latent_and_fine_ones_of_the_second():
    model = build()
    with torch.no_grad():
        random = SampleRandom(0, range(6))
        first, second = (model._to_every_layer(model.mapping(model.draw_latent(random))) for _ in range(2))
        for layer in range(1, model.synthesis.num_layers):
            styles = torch.stack([(first if number < layer else second)[:, number] for number in range(5)], dim=1)
            torch.testing.assert_close(sampled(model, mix_layer=layer), model.generate(styles, None))
    assert torch.equal(mix(first, second, 5), first) and torch.equal(mix(first, second, 0), second)
    assert torch.equal(mix(first, first, 2), first)


def test_principal_directions_are_orthonormal_and_explain_w():
    model = build(latent_dim=6)
    deviations, directions = model.principal_directions()
    torch.testing.assert_close(directions @ directions.t(), torch.eye(6), atol=1e-5, rtol=0)
    assert (deviations.diff() <= 0).all() and deviations[0] > 0
    assert (directions.gather(1, directions.abs().argmax(1, keepdim=True)) > 0).all()
    with torch.no_grad():
        w = model.mapping(BatchRandom(7, stop=20_000).normal(6))  # of other z
    along = (w - w.mean(0)) @ directions.t()
    torch.testing.assert_close(along.std(0), deviations, atol=1e-3, rtol=0.05)
    assert torch.equal(model.principal_directions()[1], directions)


def test_an_edit_moves_w_by_deviations_of_one_direction():
    model = build()
    deviations, directions = model.principal_directions()
    with torch.no_grad():
        w = model.mapping(model.draw_latent(SampleRandom(0, range(6)))) - 1.5 * deviations[2] * directions[2]
        expected = model.generate(model._to_every_layer(w), None)
    torch.testing.assert_close(sampled(model, direction=2, strength=-1.5), expected, atol=1e-5, rtol=1e-4)


def test_a_strength_of_zero_changes_nothing():
    model = noisy()
    assert torch.equal(sampled(model, direction=1, strength=0.0), sampled(model))
    plain, edited = (sampled(model, mix_layer=2, **options) for options in ({}, {"direction": 1, "strength": 0.0}))
    assert torch.equal(plain, edited) and not torch.equal(plain, sampled(model))


def test_of_the_mean_image_all_edits_are_alike():
    """Truncated to the mean of w, samples differ by their noise alone, and an edit moves every one to one image."""
    images = sampled(build(), truncation=0.0, direction=0, strength=2.0)
    torch.testing.assert_close(images, images[:1].expand_as(images), atol=1e-5, rtol=1e-4)
    assert (images[0] - sampled(build(), truncation=0.0)[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mix_layer": 5}, "mix_layer=5 must be from 1 to 4"),
        ({"direction": 4, "strength": 1.0}, "direction=4 must be from 0 to 3"),
        ({"direction": 0}, "direction and strength go together"),
        ({"strength": 1.0}, "direction and strength go together"),
    ],
)
def test_what_cannot_be_edited_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        sampled(build(), **options)


def test_noise_changes_samples_but_not_what_is_decoded():
    model = build().eval()
    with torch.no_grad():
        model.synthesis.first.noise_strength.fill_(1.0)
        latent = model.draw_latent(SampleRandom(0, range(4)))
        torch.testing.assert_close(model.decode(latent), model.decode(latent))
        assert (model.decode(latent) - model.sample(SampleRandom(0, range(4)))).abs().max() > 1e-3


def test_the_deviation_is_of_neighbours_alone():
    x = torch.randn(8, 3, 2, 2)
    whole = deviation_map(x)
    assert whole.shape == (8, 1, 2, 2)
    torch.testing.assert_close(whole[4:], deviation_map(x[4:]))
    expected = (x[:4].var(0, correction=0) + 1e-8).sqrt().mean()
    torch.testing.assert_close(whole[:4], expected.expand(4, 1, 2, 2))
    assert deviation_map(torch.ones(4, 3, 2, 2)).max() < 1e-3
    assert deviation_map(torch.randn(3, 3, 2, 2)).max() < 1e-3  # three images are three groups


def test_images_are_held_apart_by_their_styles_and_not_by_noise():
    likenesses = {}
    for strength in (0.0, 50.0):
        model = build(diversity_weight=0.5)
        for name, parameter in model.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(strength)
        model.synthesis.constant.data.zero_()
        for module in model.modules():
            if isinstance(module, ModulatedConv):
                module.style.weight.data.zero_()  # all styles are one
        batch = Batch({"image": torch.zeros(3, 1, 28, 28)}, BatchRandom(0, stop=3))
        _, metrics = model.generator_loss(batch, regularize=False)
        likenesses[strength] = metrics["likeness"].item()
    assert likenesses[0.0] > 1e4  # one image
    assert likenesses[50.0] == pytest.approx(likenesses[0.0], rel=0.05)


def test_the_weight_of_diversity_is_of_likeness():
    losses = {}
    for weight in (0.3, 0.6):
        model = build(diversity_weight=weight, path_weight=0.0)
        batch = Batch({"image": torch.zeros(3, 1, 28, 28)}, BatchRandom(0, stop=3))
        loss, metrics = model.generator_loss(batch)
        losses[weight] = loss.item()
    assert losses[0.6] - losses[0.3] == pytest.approx(0.3 * metrics["likeness"].item(), rel=1e-2)
