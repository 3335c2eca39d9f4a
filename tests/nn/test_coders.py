"""Facts about encoders and decoders: shapes fit each other, every option is read, no row reads another."""

import pytest
import torch

from genai_cli.data.base import Spec
from genai_cli.nn.coders import build_decoder, build_encoder

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 12, 20)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backbone", ["mlp", "conv"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_decoder_undoes_the_shape_of_an_encoder(shape, backbone, depth):
    torch.manual_seed(0)
    spec = Spec("image", shape, (-1.0, 1.0))
    size = {"backbone": backbone, "width": 4, "depth": depth}
    pixels = shape[1] * shape[2]
    encoder, decoder = build_encoder(spec, 6, **size), build_decoder(spec, 6, 5 * pixels, **size)
    x = torch.rand(3, shape[0] * pixels)
    code = encoder(x)
    assert code.shape == (3, 6) and decoder(code).shape == (3, 5 * pixels)
    torch.testing.assert_close(encoder(x[1:2]), code[1:2], atol=1e-5, rtol=1e-4)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    shallow = build_encoder(spec, 6, backbone=backbone, width=4)
    assert (sum(parameter.numel() for parameter in shallow.parameters()) < count) == (depth == 2)


def test_convolutions_are_for_images_of_even_sides():
    with pytest.raises(ValueError, match="backbone=conv needs images"):
        build_encoder(Spec("points", (3,)), 2, backbone="conv", width=4)
    with pytest.raises(ValueError, match="needs sides that are even, not 9x9"):
        build_decoder(Spec("image", (1, 9, 9)), 2, 81, backbone="conv", width=4)
