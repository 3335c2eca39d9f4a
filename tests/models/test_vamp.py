"""Facts about the VampPrior: it is the mean of posteriors, samples follow it, and it is the best prior of its data."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genai_cli.data.base import Batch, Spec
from genai_cli.models.vamp import VampVAE
from genai_cli.nn.random import BatchRandom

IMAGES = Spec("image", (1, 4, 4), value_range=(-1.0, 1.0))


def build() -> VampVAE:
    torch.manual_seed(0)
    return VampVAE(IMAGES, width=8, latent_dim=2, num_pseudo=4)


def mixture(model: VampVAE) -> MixtureSameFamily:
    mu, logvar = model._code(model.pseudo_inputs())
    return MixtureSameFamily(Categorical(torch.ones(4)), Independent(Normal(mu, (0.5 * logvar).exp()), 1))


def test_the_prior_is_the_mean_of_the_posteriors_of_pseudo_inputs():
    model = build()
    z = torch.randn(7, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.log_prior(z), mixture(model).log_prob(z))
    torch.testing.assert_close(model.log_prior(z.expand(3, 7, 2)), mixture(model).log_prob(z).expand(3, 7))


def test_draws_follow_the_prior():
    model = build()
    with torch.no_grad():
        drawn, prior = model.draw_latent(BatchRandom(0, stop=50_000)), mixture(model)
    torch.testing.assert_close(drawn.mean(0), prior.mean.detach(), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0), prior.variance.detach(), atol=0.05, rtol=0)


def test_pseudo_inputs_that_are_the_data_leave_only_what_z_says_of_x():
    """With one image and itself as every pseudo-input, q(z | x) = p(z) and the KL term is zero for each draw."""
    model = build().eval()
    x = torch.rand(1, 1, 4, 4) * 1.8 - 0.9
    with torch.no_grad():
        model.pseudo.copy_(((x.flatten(1) + 1) / 2).logit().expand(4, -1))
    batch = Batch({"image": x.expand(6, 1, 4, 4)}, BatchRandom(0, stop=6))
    figures = model.evaluate(batch, importance_samples=3)
    assert figures["kl"].abs().max().item() == pytest.approx(0, abs=1e-4)


def test_pseudo_inputs_begin_as_the_first_examples_once():
    model = build()
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    model.loss(Batch({"image": x}, BatchRandom(0, stop=3)))
    unit = (x.flatten(1) + 1) / 2
    torch.testing.assert_close(model.pseudo_inputs(), unit[[0, 1, 2, 0]], atol=0.15, rtol=0)
    assert not torch.equal(model.pseudo[0], model.pseudo[3])  # the same example, told apart
    begun = model.pseudo.clone()
    model.loss(Batch({"image": -x}, BatchRandom(0, stop=3)))
    assert torch.equal(model.pseudo, begun)
