"""Facts about pix2pix: what its judge sees, what its skips carry, where its noise is."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.pix2pix import Pix2Pix
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.nn.translation import NORMS, TranslationUNet, patch_discriminator

SPEC = Spec("image", (3, 20, 28), (-1.0, 1.0), source=Spec("image", (1, 20, 28), (-1.0, 1.0)), is_paired=True)


def build(**options) -> Pix2Pix:
    torch.manual_seed(0)
    return Pix2Pix(SPEC, **{"width": 4, "levels": 2, "patch": 16, **options})


def batch_of(count: int = 3) -> Batch:
    random = torch.Generator().manual_seed(1)
    source, image = (torch.rand(count, c, 20, 28, generator=random) * 2 - 1 for c in (1, 3))
    return Batch({"source": source, "image": image}, BatchRandom(0, stop=count))


@pytest.mark.parametrize(("patch", "side"), [(1, 9), (16, 40), (34, 64), (70, 128)])
def test_a_logit_sees_as_many_pixels_as_the_option_says(patch: int, side: int) -> None:
    """By the gradient of one logit in the middle, without the norms, which look at the whole image."""
    torch.manual_seed(0)
    judge = patch_discriminator(2, (2, side, side), width=2, patch=patch, norm=None).double()
    image = torch.randn(1, 2, side, side, dtype=torch.float64, requires_grad=True)
    logits = judge(image)
    middle = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], image)
    seen = gradient.abs().sum((0, 1)) > 0  # (H, W)
    assert int(seen.any(0).sum()) == int(seen.any(1).sum()) == patch


def test_a_patch_too_large_for_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.patch=142 halves images 4 times.*20x28.*use model\.patch=34"):
        build(patch=142)


def test_every_level_of_the_unet_has_a_skip() -> None:
    """With the innermost level silenced pixels still come through; a doubling takes what came up and what went down."""
    network = TranslationUNet(1, 3, width=4, levels=4, norm=NORMS["instance"], dropout=0.0, value_range=(-1.0, 1.0))
    doublings = [layer for up in network.ups for layer in up if isinstance(layer, nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in doublings] == [(32, 16), (32, 8), (16, 4), (8, 3)]
    sides: list[int] = []
    for down in network.downs:
        down.register_forward_hook(lambda _, __, maps: sides.append(maps.shape[-1]))
    x = torch.randn(2, 1, 28, 28)
    assert network(x, SampleRandom(0, range(2))).shape == (2, 3, 28, 28)
    assert sides == [16, 8, 4, 2]  # 28 pixels are extended to 32
    with torch.no_grad():
        doublings[0].weight.zero_()
    assert not torch.equal(*(network(y, SampleRandom(0, range(2))) for y in (x, x + 1 - 2 * (x > 0))))


def test_the_paper_s_networks() -> None:
    """Section 6.1: C64-C128-C256-C512-C512-C512-C512-C512 and CD512-CD512-CD512-C512-C256-C128-C64 at 256 pixels."""
    side = Spec("image", (3, 256, 256), (-1.0, 1.0))
    with torch.device("meta"):
        model = Pix2Pix(dataclasses.replace(side, source=side, is_paired=True), width=64, levels=8, patch=70)
    of_downs = [layer.out_channels for layer in model.generator.downs.modules() if isinstance(layer, nn.Conv2d)]
    of_ups = [layer.out_channels for layer in model.generator.ups.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert of_downs == [64, 128, 256, 512, 512, 512, 512, 512]
    assert of_ups == [512, 512, 512, 512, 256, 128, 64, 3]
    assert [layer.out_channels for layer in model.discriminator if isinstance(layer, nn.Conv2d)] == [
        64,
        128,
        256,
        512,
        1,
    ]


def test_noise_is_dropout_also_in_samples_and_is_that_of_the_row() -> None:
    model, given = build().eval(), batch_of()["source"]
    samples = model.sample(SampleRandom(0, range(6)), given=given)
    assert not torch.allclose(samples[0], samples[3])  # one source, two draws
    torch.testing.assert_close(model.sample(SampleRandom(0, [3]), given=given[:1]), samples[3:4])
    calm = build(dropout=0.0).eval()
    samples = calm.sample(SampleRandom(0, range(6)), given=given)
    assert torch.equal(samples[:3], samples[3:])


def test_the_loss_is_the_games_and_a_hundred_times_the_distance() -> None:
    model, batch = build(), batch_of()
    value, metrics = model.generator_loss(batch)
    torch.testing.assert_close(value, metrics["adversarial"] + 100 * metrics["l1"])
    plain, _ = build(l1_weight=0.0).generator_loss(batch_of())
    torch.testing.assert_close(plain, metrics["adversarial"])


def test_a_level_of_a_single_pixel_has_no_norm_that_would_make_it_nothing() -> None:
    network = TranslationUNet(1, 1, width=2, levels=4, norm=NORMS["instance"], dropout=0.0, value_range=(-1.0, 1.0))
    x = torch.randn(2, 1, 16, 16)
    network(x, SampleRandom(0, range(2))).sum().backward()
    assert network.downs[-1][-1].weight.grad.abs().max() > 0


def test_dropout_keeps_the_mean() -> None:
    """Half of what comes up is left out, the rest is twice as much."""
    network = TranslationUNet(1, 1, width=4, levels=2, norm=NORMS["instance"], dropout=0.5, value_range=(-1.0, 1.0))
    before, after = [], []
    network.ups[0].register_forward_hook(lambda _, __, maps: before.append(maps))
    network.ups[1].register_forward_pre_hook(lambda _, inputs: after.append(inputs[0]))
    network(torch.randn(3, 1, 16, 16), SampleRandom(0, range(3)))
    came_up = after[0][:, : before[0].shape[1]]
    is_kept = came_up != 0
    assert 0.4 < is_kept.float().mean() < 0.6
    torch.testing.assert_close(came_up[is_kept], 2 * before[0][is_kept])


def test_the_judge_is_shown_the_source_beside_data_and_fakes() -> None:
    model, batch = build(), batch_of()
    shown: list[Tensor] = []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    model.discriminator_loss(batch)
    model.generator_loss(batch)
    assert len(shown) == 3 and all(torch.equal(pair[:, :1], batch["source"]) for pair in shown)


def test_the_distance_of_the_untouched_source_is_told() -> None:
    """What a translator has to beat: grey sources of 0 beside images of 0.2."""
    model, batch = build().eval(), batch_of()
    level = Batch({"source": 0 * batch["source"] - 1, "image": 0 * batch["image"] - 0.6}, batch.random)
    assert model.statistics(level)["l1_of_source"] == pytest.approx(0.2)


def test_the_judge_looks_at_the_source_too() -> None:
    model, batch = build(), batch_of()
    source = batch["source"].requires_grad_()
    pair = torch.cat([source, batch["image"]], 1)
    (gradient,) = torch.autograd.grad(model.discriminator(pair).sum(), source)
    assert gradient.abs().max() > 0


def test_figures_of_a_translator_that_knows_the_truth() -> None:
    model, batch = build().eval(), batch_of()
    truth = batch["image"]
    model.generator.forward = lambda source, random: (truth + 0.2).clamp(-1, 1)  # a tenth of the range too bright
    figures: dict[str, Tensor] = model.evaluate(batch)
    expected = ((truth + 0.2).clamp(-1, 1) - truth).abs().flatten(1).mean(1) / 2
    torch.testing.assert_close(figures["l1"], expected)
    model.generator.forward = lambda source, random: truth * 0 - 0.5
    half = Batch({**batch, "image": truth * 0 + 0.5}, batch.random)
    assert model.statistics(half)["psnr"] == pytest.approx(-10 * torch.tensor(0.25).log10().item())


@pytest.mark.parametrize("spec", [dataclasses.replace(SPEC, is_paired=False), Spec("image", (1, 28, 28), (-1.0, 1.0))])
def test_data_without_pairs_are_refused(spec: Spec) -> None:
    with pytest.raises(ValueError, match=r"learns from pairs.*model=cyclegan"):
        Pix2Pix(spec)
    with pytest.raises(ValueError, match="given=FOLDER"):
        build().sample(SampleRandom(0, range(2)))
