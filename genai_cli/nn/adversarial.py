"""The losses of the two players of a GAN (Goodfellow et al. 2014, arXiv:1406.2661), on the discriminator's logits.

With D = sigmoid(logit): -log D = softplus(-logit) and -log(1 - D) = softplus(logit), exact where D rounds to 0 or 1.
"""

from collections.abc import Callable

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


GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "nonsaturating": nonsaturating,
    "minimax": minimax,
}
