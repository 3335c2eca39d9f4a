"""The losses of the two players of a GAN (Goodfellow et al. 2014, arXiv:1406.2661), on the discriminator's logits.

With D = sigmoid(logit): -log D = softplus(-logit) and -log(1 - D) = softplus(logit), exact where D rounds to 0 or 1.
Of the other losses a logit is the discriminator's plain output, and no probability.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))): Eq. 1, which the discriminator maximises, with its sign turned.

    At the best discriminator it is 2 log 2 - 2 JSD(data, generator); 2 log 2 = 1.386 means "cannot tell".
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def nonsaturating(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z)): keeps its slope while the discriminator is winning (Section 3)."""
    return F.softplus(-fake_logits).mean()


def minimax(fake_logits: Tensor) -> Tensor:
    """E log(1 - D(G(z))): Eq. 1 as it stands; flat where the discriminator is sure that a fake is one."""
    return -F.softplus(fake_logits).mean()


def least_squares_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2: Eq. 9 of Mao et al. 2017 (arXiv:1611.04076), labels 0 and 1."""
    return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()


def least_squares_generator(fake_logits: Tensor) -> Tensor:
    """1/2 E (D(G(z)) - 1)^2, of the same equation."""
    return 0.5 * (fake_logits - 1).square().mean()


def wasserstein_critic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) (Arjovsky et al. 2017, arXiv:1701.07875, Algorithm 1, for descent).

    Its negative is the Wasserstein distance where D is the best of all 1-Lipschitz functions.
    """
    return fake_logits.mean() - real_logits.mean()


def raise_logits(fake_logits: Tensor) -> Tensor:
    """-E D(G(z)): the generator's side of both the Wasserstein and the hinge loss."""
    return -fake_logits.mean()


def hinge(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))): Eq. 16 of Miyato et al. 2018 (arXiv:1802.05957), for descent."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def pairing(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(x) - D(G(z)))), each example with one fake (Huang et al. 2025, arXiv:2501.05441, Eq. 2).

    The relativistic game: the generator plays it with the sides changed. What matters is that D ranks the pair, so no
    fake can hide in a mode that others have left. 2 log 2 of two such losses means "cannot tell", log 2 of one.
    """
    return F.softplus(fake_logits - real_logits).mean()


@dataclass(frozen=True)
class Loss:
    """Of both players, to be descended. The generator's sees the logits of its fakes."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor] | None  # None: the discriminator's with the sides changed
    has_probabilities: bool = False  # whether sigmoid(logit) is D's belief that an example is real
    undecided: float | None = 0.0  # the logit of a D that cannot tell; None: all logits may move, and the loss stays


LOSSES = {
    "nonsaturating": Loss(discriminator_loss, nonsaturating, has_probabilities=True),
    "minimax": Loss(discriminator_loss, minimax, has_probabilities=True),
    "lsgan": Loss(least_squares_discriminator, least_squares_generator, undecided=0.5),
    "wgan": Loss(wasserstein_critic, raise_logits, undecided=None),
    "hinge": Loss(hinge, raise_logits),
    "relativistic": Loss(pairing, None, undecided=None),
}
