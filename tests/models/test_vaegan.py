"""Facts about VAE/GAN: who learns from what, and that errors are those of features."""

import math

import pytest
import torch
import torch.nn.functional as F

from genai_cli.data.base import Batch, Spec
from genai_cli.models.vaegan import VAEGAN
from genai_cli.nn.random import BatchRandom, SampleRandom

IMAGES = Spec("image", (1, 8, 8), value_range=(-1.0, 1.0))


def batch() -> Batch:
    image = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(7)).tanh()
    return Batch({"image": image}, BatchRandom(0, stop=6))


def build(**options: object) -> VAEGAN:
    torch.manual_seed(0)
    return VAEGAN(IMAGES, width=4, latent_dim=2, **options)


def test_the_error_is_half_the_squared_distance_of_features():
    model, x = build(), batch()["image"]
    assert model.feature_error(x, x) == 0
    other = x.flip(3)
    features = model.discriminator.features(torch.cat([x, other])).flatten(1)
    torch.testing.assert_close(
        model.feature_error(x, other), 0.5 * (features[:6] - features[6:]).square().sum(1).mean()
    )


def test_the_decoders_game_does_not_reach_the_encoder():
    model = build()
    loss, _ = model.decoder_loss(batch())
    gradients = torch.autograd.grad(loss, list(model.encoder.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_the_decoder_plays_for_reconstructions_and_samples():
    """-E log D(x~) of both, and the discriminator takes both for fakes."""
    model = build()
    fakes = model.discriminator(torch.cat(model.fakes(batch())))
    torch.testing.assert_close(model.decoder_loss(batch())[1]["game"], F.softplus(-fakes).mean())
    judged, _ = model.discriminator_loss(batch())
    real = model.discriminator(batch()["image"])
    torch.testing.assert_close(judged, F.softplus(-real).mean() + F.softplus(fakes).mean())


def test_gamma_weighs_the_error_of_the_decoder_alone():
    error = build().encoder_loss(batch())[1]["feature_error"]
    losses = [build(gamma=gamma).decoder_loss(batch())[0] for gamma in (0.0, 3.0)]
    torch.testing.assert_close(losses[1] - losses[0], 3 * error)
    assert build(beta=5.0).encoder_loss(batch())[0] > build(beta=0.0).encoder_loss(batch())[0] == error


def test_samples_are_decoded_draws_of_the_prior_unless_another_density_is_asked_for():
    """Also where training remembered codes: with those of one image alone, a fitted density draws its code."""
    model = build()
    model.encoder_loss(batch())
    assert model.codes.count == 6
    model.eval()
    model.encoder_loss(batch())
    assert model.codes.count == 6, "only training is remembered"
    rows = SampleRandom(0, range(4))
    assert torch.equal(model.sample(SampleRandom(0, range(4))), model.decode(rows.normal(2)))
    model.codes.codes[:6] = torch.tensor([0.5, -2.0])
    fitted = model.sample(SampleRandom(0, range(4)), latent="gmm")
    torch.testing.assert_close(fitted, model.decode(torch.tensor([[0.5, -2.0]])).expand(4, 1, 8, 8), atol=1e-3, rtol=0)


def test_what_is_remembered_are_draws_of_the_posterior():
    """The decoder learned to decode these, and not the means."""
    model = build()
    model.encoder_loss(batch())
    mu, logvar = model.posterior(batch()["image"])
    noise = (model.codes.remembered() - mu) / (0.5 * logvar).exp()
    torch.testing.assert_close(noise, batch().random.normal(2))


def test_a_checkpoint_from_before_codes_were_remembered_loads_and_has_none_to_fit():
    old = {name: value for name, value in build().state_dict().items() if not name.startswith("codes")}
    model = VAEGAN(IMAGES, width=4, latent_dim=2).eval()
    model.load_state_dict(old)
    assert torch.equal(model.sample(SampleRandom(0, range(2))), build().eval().sample(SampleRandom(0, range(2))))
    with pytest.raises(ValueError, match="latent=gmm is fitted to codes of training, and this run has kept none"):
        model.sample(SampleRandom(0, range(2)), latent="gmm")


def test_statistics_show_a_collapsed_posterior():
    """Nothing where q(z | x) is the prior, whatever x; every unit and log N nats where it is far apart and narrow."""
    model = build()
    model.encoder = torch.nn.Linear(64, 4)
    torch.nn.init.zeros_(model.encoder.weight)
    torch.nn.init.zeros_(model.encoder.bias)
    assert model.statistics(batch()) == {"active_units": 0, "mutual_information": pytest.approx(0, abs=1e-5)}
    with torch.no_grad():
        model.encoder.weight[:2] = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
        model.encoder.bias[2:] = -20.0  # log variances
    found = model.statistics(batch())
    assert found == {"active_units": 2, "mutual_information": pytest.approx(math.log(6), rel=1e-4)}
