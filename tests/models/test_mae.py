"""Facts about the masked autoencoder: the encoder sees what is shown and no more, hidden patches alone are judged."""

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.mae import MAE
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.nn.vit import from_patches, put, take, to_patches

IMAGES = Spec("image", (3, 8, 12), value_range=(-1.0, 1.0))


def build() -> MAE:
    torch.manual_seed(0)
    return MAE(IMAGES, patch=2, width=8, depth=2, heads=2, decoder_depth=1)


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 8, 12, generator=torch.Generator().manual_seed(7)).tanh()


def test_patches_are_squares_of_the_image_and_a_round_trip():
    x = images()
    patches = to_patches(x, 2)
    assert patches.shape == (4, 24, 12)
    torch.testing.assert_close(patches[:, 7].unflatten(1, (3, 2, 2)), x[:, :, 2:4, 2:4])  # second row, second column
    torch.testing.assert_close(from_patches(patches, 2, 8), x)


def test_what_is_taken_is_put_back():
    tokens, places = torch.randn(2, 5, 3), torch.tensor([[4, 0], [1, 2]])
    taken = take(tokens, places)
    torch.testing.assert_close(taken[0, 0], tokens[0, 4])
    torch.testing.assert_close(put(taken, places, tokens), tokens)


def test_the_encoder_sees_what_is_shown_alone():
    model = build()
    patches = to_patches((images() + 1) / 2, 2).requires_grad_()
    order = model.order(BatchRandom(0, stop=4))
    code, shown = model.see(patches, order[:, : model.num_shown])
    assert model.num_shown == 6 and shown.shape == (4, 6, 8)
    (gradient,) = torch.autograd.grad(code.sum() + shown.square().sum(), patches)
    touched = gradient.abs().sum(2) > 0  # (B, T)
    expected = torch.zeros(4, 24, dtype=torch.bool).scatter(1, order[:, :6], True)
    assert torch.equal(touched, expected)


def test_hidden_patches_alone_are_judged():
    model = build()
    patches = to_patches((images() + 1) / 2, 2)
    order = model.order(BatchRandom(0, stop=4))
    code, shown = model.see(patches, order[:, :6])
    expected = model.hidden_error(patches, order, code, shown)
    spoilt = put(torch.zeros(4, 6, 12), order[:, :6], patches)
    torch.testing.assert_close(model.hidden_error(spoilt, order, code, shown), expected)
    other = put(torch.zeros(4, 1, 12), order[:, 6:7], patches)
    assert (model.hidden_error(other, order, code, shown) != expected).all()


def test_a_class_token_alone_is_an_image():
    model = build()
    for number in range(4):
        model.loss(Batch({"image": images(16)}, BatchRandom(0, number, stop=16)))
    model.eval()
    assert model.encode(images()).shape == (4, model.latent_dim)
    assert model.sample(SampleRandom(0, range(3))).shape == (3, 3, 8, 12)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="patch=5 must divide the sides of the images, 8x12"):
        MAE(IMAGES, patch=5)
    with pytest.raises(ValueError, match=r"mask_ratio=0.0 hides none of 6 patches"):
        MAE(IMAGES, patch=4, mask_ratio=0.0)
