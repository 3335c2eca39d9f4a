"""Facts about VQ-VAE: its prior is a distribution over codes, codes carry all that the decoder is told."""

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.vqvae import VQVAE
from genai_cli.nn.code_prior import CodePrior
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 8, 8), value_range=(-1.0, 1.0), classes=("a", "b"))
TINY = {"width": 8, "num_codes": 64, "prior_width": 16, "prior_depth": 1, "prior_heads": 2}


def batch(count: int = 6) -> Batch:
    image = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(7)).tanh()
    return Batch({"image": image}, BatchRandom(0, stop=count))


def test_the_prior_sums_to_one_and_draws_by_its_probabilities():
    torch.manual_seed(0)
    prior = CodePrior(3, 4, width=8, depth=1, heads=2).eval()
    torch.nn.init.normal_(prior.head.weight, std=1.0)
    codes = torch.cartesian_prod(*[torch.arange(3)] * 4)  # all 81
    with torch.no_grad():
        expected = (-prior.nll(codes)).exp()
        assert expected.sum().item() == pytest.approx(1, abs=1e-5)
        drawn = prior.draw(BatchRandom(0, stop=20_000))
    index = (drawn * 3 ** torch.arange(3, -1, -1)).sum(1)
    found = torch.bincount(index, minlength=81) / 20_000
    assert (found - expected).abs().max() < 0.015


@pytest.mark.parametrize(
    "options", [{}, {"residual": 2}, {"quantizer": "fsq"}, {"adversarial": 0.5}, {"perceptual": 2.0}]
)
def test_codes_are_all_that_the_decoder_is_told(options):
    torch.manual_seed(0)
    model = VQVAE(IMAGES, **TINY, **options)
    loss, metrics = model.autoencoder_loss(batch(), adversarial=model.adversarial)
    assert loss.isfinite()
    levels = ["perplexity"] if model.residual == 1 else ["perplexity_0", "perplexity_1"]
    assert [key for key in metrics if "perplexity" in key] == levels
    assert all(1 <= metrics[level] <= model.quantizer.num_codes for level in levels)
    model.eval()
    codes = model.codes_of(batch()["image"])
    assert codes.shape == (6, 4 * model.residual)
    figures = model.evaluate(batch())
    reconstruction = model.image_of(codes)
    torch.testing.assert_close(
        figures["squared_error"], ((reconstruction - batch()["image"]) / 2).square().flatten(1).sum(1)
    )
    assert model.sample(SampleRandom(0, range(3)), temperature=0.5).shape == (3, 1, 8, 8)


def test_only_training_moves_the_codebook():
    torch.manual_seed(0)
    model = VQVAE(IMAGES, **TINY).eval()
    before = model.quantizer.books[0].vectors.clone()
    model.autoencoder_loss(batch(), adversarial=0.0)
    assert torch.equal(model.quantizer.books[0].vectors, before)
    model.train()
    model.prior_loss(batch())
    assert torch.equal(model.quantizer.books[0].vectors, before)
    model.autoencoder_loss(batch(), adversarial=0.0)
    assert not torch.equal(model.quantizer.books[0].vectors, before)


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="halvings=2 needs sides divisible by 4, not 6x6"):
        VQVAE(Spec("image", (1, 6, 6), value_range=(-1.0, 1.0)), **TINY)


@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
def test_latents_are_what_the_quantiser_is_given_and_decode_to_the_reconstruction(quantizer):
    torch.manual_seed(0)
    model = VQVAE(IMAGES, **TINY, quantizer=quantizer).eval()
    x = batch()["image"]
    latents = model.latents_of(x)
    assert latents.shape == (6, model.quantizer.dim, 2, 2)
    torch.testing.assert_close(model.decode_latents(latents), model.image_of(model.codes_of(x)))
    nudged = latents + 1e-5 * torch.randn_like(latents)  # what is drawn need not be a code: the quantiser sees to it
    torch.testing.assert_close(model.decode_latents(nudged), model.decode_latents(latents))


def test_the_perceptual_distance_is_a_distance_and_trains_the_decoder_alone():
    torch.manual_seed(0)
    model = VQVAE(IMAGES, **TINY, perceptual=2.0)
    x = batch()["image"]
    distance = model.classifier.distance
    assert (distance(x, x) == 0).all() and (distance(x, -x) > 0).all() and (distance(x, -x) <= 12).all()
    torch.testing.assert_close(distance(x, -x), distance(-x, x))
    loss, metrics = model.autoencoder_loss(batch(), adversarial=0.0)
    plain = metrics["squared_error"] + model.commitment * metrics["commitment"]
    torch.testing.assert_close(loss, plain + 2.0 * metrics["perceptual"])
    groups = model.parameter_groups()
    assert {id(weight) for weight in groups["classifier"]}.isdisjoint(map(id, groups["autoencoder"]))
    with pytest.raises(ValueError, match=r"model\.perceptual=1\.0 compares .*, and these data have no labels"):
        VQVAE(Spec("image", (1, 8, 8), value_range=(-1.0, 1.0)), **TINY, perceptual=1.0)


def test_the_classifier_learns_the_labels():
    torch.manual_seed(0)
    model = VQVAE(IMAGES, **TINY, perceptual=1.0)
    labelled = Batch({**batch(), "label": torch.arange(6) % 2}, BatchRandom(0, stop=6))
    optimizer = torch.optim.Adam(model.parameter_groups()["classifier"], lr=1e-2)
    for _ in range(80):
        loss, metrics = model.classifier_loss(labelled)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["accuracy"] == 1
