"""Facts about the hierarchy: the ladder multiplies densities, without data the way down is the prior's."""

import torch
from torch.distributions import Normal

from genai_cli.nn.hierarchy import TopDownBlock, gaussian, product_of_gaussians
from genai_cli.nn.random import BatchRandom


def test_the_product_of_gaussians_is_the_product_of_densities():
    mu, logvar, other_mu, other_logvar = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    merged = product_of_gaussians((mu, logvar), (other_mu, other_logvar))
    z = torch.linspace(-3, 3, 7)[:, None]

    def log_prob(mu, logvar):
        return Normal(mu, (0.5 * logvar).exp()).log_prob(z)

    gap = log_prob(mu, logvar) + log_prob(other_mu, other_logvar) - log_prob(*merged)
    torch.testing.assert_close(gap, gap[:1].expand(7, 3), atol=1e-4, rtol=1e-4)  # equal but for a constant


def test_deviations_have_bounds():
    """So that no KL term overflows, whatever a network says: from e^-4 to e^2."""
    _, logvar = gaussian(torch.tensor([0.0, 0.0, 0.0, -300.0, 1.0, 300.0])[None, :, None, None])
    assert logvar.flatten().tolist() == [-8, 1, 4]


def test_a_block_without_features_draws_from_its_prior():
    torch.manual_seed(0)
    for is_ladder in (False, True):
        block = TopDownBlock(8, 2, 4, is_ladder=is_ladder)
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        h = torch.randn(3, 8, 4, 4)
        _, latent = block(h, None, BatchRandom(0, stop=3).normal)
        assert torch.equal(latent.mu, latent.prior_mu) and torch.equal(latent.logvar, latent.prior_logvar)
        _, informed = block(h, torch.randn(3, 8, 4, 4), BatchRandom(0, stop=3).normal)
        assert torch.equal(informed.prior_mu, latent.prior_mu) and not torch.equal(informed.mu, latent.mu)
        if is_ladder:  # a product is narrower than either
            assert (informed.logvar < informed.prior_logvar).all()
