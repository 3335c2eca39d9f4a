"""Facts about VAE/GAN: who learns from what, and that errors are those of features."""

import torch
import torch.nn.functional as F

from genai_cli.data.base import Batch, Spec
from genai_cli.models.vaegan import VAEGAN
from genai_cli.nn.random import BatchRandom

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
