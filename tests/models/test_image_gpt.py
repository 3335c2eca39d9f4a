"""Facts about image GPT: causal by gradient, all images sum to one, the cache changes nothing, halves are completed."""

import itertools

import pytest
import torch

from genai_cli.data.base import Batch, Spec
from genai_cli.models.image_gpt import ImageGPT
from genai_cli.nn.pixel_tokens import PixelTokens
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.decoding import draw_tokens


def spec_of(*shape: int, levels: int = 2) -> Spec:
    return Spec("image", shape, value_range=(-1.0, 1.0), levels=levels, classes=("a", "b", "c"))


def model_of(spec: Spec, **options) -> ImageGPT:
    torch.manual_seed(0)
    model = ImageGPT(spec, **{"width": 16, "depth": 2, "heads": 2, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def batch_of(x: torch.Tensor, **labels: torch.Tensor) -> Batch:
    return Batch({"image": x, **labels}, BatchRandom(0, stop=len(x)))


def test_a_pixel_is_told_by_all_before_it_and_none_after():
    model = model_of(spec_of(1, 3, 4))
    tokens = torch.zeros(1, 12, dtype=torch.long)
    embedded = model.embedding(tokens).detach().requires_grad_()
    model.embedding.forward = lambda tokens: embedded[:, : tokens.shape[1]]
    logits = model(tokens, tokens[:, 0]).sum(2)[0]
    for t in range(1, 12):
        (gradient,) = torch.autograd.grad(logits[t], embedded, retain_graph=True)
        seen = (gradient[0] != 0).any(1)
        assert seen[:t].all() and not seen[t:].any()


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 1, 2)])
def test_probabilities_of_all_images_sum_to_one(shape):
    model = model_of(spec_of(*shape))
    count = shape[0] * shape[1] * shape[2]
    images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=count))).view(-1, *shape)
    nll = model.evaluate(batch_of(images))["nll"].double()
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_drawing_with_a_cache_equals_a_whole_pass_for_each_pixel():
    model = model_of(spec_of(1, 4, 3, levels=5), conditional=True)
    label = torch.tensor([0, 1, 2, 0])
    random, tokens = SampleRandom(2, range(4)), torch.zeros(4, 12, dtype=torch.long)
    with torch.no_grad():
        for t in range(12):
            tokens[:, t] = draw_tokens(model(tokens, label)[:, t], random)
    assert torch.equal(model.sample(SampleRandom(2, range(4))), model.pixels.to_image(tokens))


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)])
def test_tokens_and_images_are_the_same_where_nothing_is_reduced(shape):
    pixels = PixelTokens(spec_of(*shape, levels=6), shades=6, resolution=None)
    image = torch.randint(0, 6, (5, *shape)) / 2.5 - 1
    tokens = pixels.to_tokens(image)
    assert tokens.shape == (5, 16) and pixels.vocabulary_size == 6 ** shape[0] > tokens.max()
    torch.testing.assert_close(pixels.to_image(tokens), image)
    assert PixelTokens(spec_of(3, 4, 4, levels=256), shades=None, resolution=None).vocabulary_size == 512
    with pytest.raises(ValueError, match=r"model\.shades=7 must be from 2 to 6"):
        PixelTokens(spec_of(*shape, levels=6), shades=7, resolution=None)


def test_given_halves_stay_and_labels_are_heard():
    model = model_of(spec_of(1, 4, 4), conditional=True)
    given = torch.randn(2, 1, 4, 4).sign()
    for keep, half in (("top_half", (..., slice(0, 2), slice(None))), ("left_half", (..., slice(0, 2)))):
        drawn = model.sample(SampleRandom(0, range(3)), given=given, keep=keep)
        assert torch.equal(drawn[half], given[[0, 1, 0]][half]) and not torch.equal(drawn[0], given[0])
    nll = model.evaluate(batch_of(torch.ones(3, 1, 4, 4), label=torch.arange(3)))["nll"]
    assert len(nll.unique()) == 3
