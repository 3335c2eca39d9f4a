"""Facts about quantisers: a codebook learns k-means, gradients pass straight through, codes stand for vectors."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from genai_cli.nn.quantize import Codebook, FiniteScalarQuantizer, VectorQuantizer, perplexities, perplexity


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def test_without_a_past_a_step_is_one_of_k_means():
    book = Codebook(2, 3, decay=0.0)
    z = seeded(50, 2)
    book.counts.fill_(9.0)
    book.vectors.copy_(z[:3])
    nearest = torch.cdist(z, z[:3]).argmin(1)
    assert torch.equal(book.nearest(z), nearest)
    book.learn(z)
    expected = torch.stack([z[nearest == k].mean(0) for k in range(3)])
    torch.testing.assert_close(book.vectors, expected)
    torch.testing.assert_close(book.counts, torch.bincount(nearest).float())


def test_a_codebook_finds_separate_clusters():
    centres = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    book = Codebook(2, 3)
    for seed in range(300):
        noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(seed))
        book.learn(centres[torch.arange(60) % 3] + 0.3 * noise)
    found = book.vectors[torch.cdist(centres, book.vectors).argmin(1)]
    torch.testing.assert_close(found, centres, atol=0.1, rtol=0)


def test_codes_out_of_use_restart_at_vectors_of_the_batch():
    book = Codebook(2, 3)
    book.counts.copy_(torch.tensor([5.0, 0.01, 5.0]))
    book.vectors.copy_(torch.tensor([[0.0, 0.0], [99.0, 99.0], [1.0, 1.0]]))
    book.sums.copy_(book.vectors * book.counts[:, None])
    book.learn(torch.full((20, 2), 0.9))
    assert book.vectors.max() < 2
    assert (book.counts >= 0.99).all()


@pytest.mark.parametrize(
    "quantizer", [VectorQuantizer(3, 16), VectorQuantizer(3, 16, 3), FiniteScalarQuantizer((8, 6, 5))]
)
def test_codes_and_vectors_are_a_round_trip(quantizer):
    quantized = quantizer(3 * seeded(200, 3))
    torch.testing.assert_close(quantizer.vectors_of(quantized.indices), quantized.vectors)
    assert quantized.indices.min() >= 0 and quantized.indices.max() < quantizer.num_codes


def test_gradients_pass_straight_through_and_commitment_pulls_to_the_codes():
    quantizer = VectorQuantizer(3, 16)
    z = seeded(20, 3).requires_grad_()
    quantized = quantizer(z)
    target = seeded(20, 3)
    (gradient,) = torch.autograd.grad((quantized.vectors * target).sum(), z, retain_graph=True)
    torch.testing.assert_close(gradient, target)
    (pull,) = torch.autograd.grad(quantized.commitment.sum(), z)
    torch.testing.assert_close(pull, 2 * (z - quantized.vectors).detach())


def test_every_level_of_codes_lessens_the_rest():
    quantizer = VectorQuantizer(4, 8, 3)
    z = seeded(500, 4)
    for _ in range(50):
        quantizer(z, learn=True)
    errors = []
    for levels in (1, 2, 3):
        value = sum(quantizer.books[i].vectors[quantizer(z).indices[:, i]] for i in range(levels))
        errors.append((z - value).square().sum(1).mean().item())
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    torch.testing.assert_close(value, quantizer(z).vectors)


def test_finite_scalars_reach_every_code_with_equal_shares_of_the_tanh():
    quantizer = FiniteScalarQuantizer((4, 3))
    z = torch.atanh(torch.linspace(-1, 1, 4003)[1:-1])[:, None].expand(-1, 2)
    for digit, levels in enumerate((4, 3)):
        digits = quantizer(z).indices[:, 0] // math.prod((4, 3)[:digit]) % levels
        shares = torch.bincount(digits, minlength=levels) / len(z)
        torch.testing.assert_close(shares, torch.full((levels,), 1 / levels), atol=2e-3, rtol=0)
    every = torch.tensor(list(itertools.product([-5.0, -0.5, 0.5, 5.0], [-5.0, 0.0, 5.0])))
    assert sorted(quantizer(every).indices.flatten().tolist()) == list(range(12))
    assert quantizer(every).vectors.abs().max() == 1


def test_perplexity_counts_the_codes_in_use():
    assert perplexity(torch.zeros(10, 1, dtype=torch.long), 8).item() == pytest.approx(1)
    assert perplexity(torch.arange(40)[:, None] % 5, 8).item() == pytest.approx(5)


def test_perplexity_of_a_level_is_not_hidden_by_another():
    codes = torch.stack([torch.zeros(512, dtype=torch.long), torch.arange(512) % 256], dim=1)
    assert perplexity(codes, 256).item() == pytest.approx(31.6, abs=0.1), "what both together would say"
    found = {name: value.item() for name, value in perplexities(codes, 256).items()}
    assert found == {"perplexity_0": pytest.approx(1), "perplexity_1": pytest.approx(256)}
    assert perplexities(codes[:, 1:], 256)["perplexity"].item() == pytest.approx(256)
