"""What keeps a discriminator from becoming too steep or too sure: penalties on its gradients, outputs and weights.

And what keeps a generator from drawing the same image for every z (`likeness`).

A penalty on gradients is differentiated itself, so the discriminator must allow a second derivative (no `FastLinear`)
and must not mix the rows of a batch (no `BatchNorm`): the gradient of one example's logit would be that of another's.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import has_many_ranks, sum_over_ranks

Judge = Callable[[Tensor], Tensor]  # examples (B, ...) to logits (B, 1)


def squared_slopes(logits: Tensor, x: Tensor) -> Tensor:
    """||dD(x)/dx||^2 of each example, (B,), differentiable; `logits` (B, 1) were computed from `x`."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def zero_centred_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """1/2 E ||dD(x)/dx||^2: R1 where `x` are data, R2 where they are fakes (Mescheder et al. 2018, arXiv:1801.04406).

    Eq. 9 and 10 of the paper without their weight gamma.
    """
    return 0.5 * squared_slopes(logits, x).mean()


def gradient_penalty(judge: Judge, real: Tensor, fake: Tensor, random: RowRandom) -> Tensor:
    """E (||dD(x)/dx|| - 1)^2 on straight lines between data and fakes (Gulrajani et al. 2017, arXiv:1704.00028, Eq. 3).

    x = eps real + (1 - eps) fake, with eps uniform in [0, 1) for each pair.
    """
    eps = random.uniform(*[1] * (real.dim() - 1))  # (B, 1, ...)
    x = (eps * real + (1 - eps) * fake).detach().requires_grad_()
    # The square root of exactly 0 has no slope; a constant discriminator would get NaN.
    slopes = (squared_slopes(judge(x), x) + 1e-12).sqrt()
    return (slopes - 1).square().mean()


def consistency(judge: Judge, x: Tensor, logits: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """E (D(x) - D(T(x)))^2 for a change T that leaves the meaning (Zhang et al. 2020, arXiv:1910.12027)."""
    return (logits - judge(change(x))).square().mean()


def likeness(fake: Tensor, other_fake: Tensor, latent: Tensor, other_latent: Tensor) -> Tensor:
    """How little two images of a pair differ, for how far apart their z lie: E d(z, z') / d(G(z), G(z')).

    The mode-seeking term (Mao et al. 2019, arXiv:1903.05628, Section 3.2), with mean absolute differences d, for each
    pair by itself. Of images and codes alike, (B, ...) and (B, D) each.
    """
    apart = (fake - other_fake).abs().flatten(1).mean(1)  # (B,)
    return ((latent - other_latent).abs().flatten(1).mean(1) / (apart + 1e-5)).mean()


class LeCam(nn.Module):
    """Holds the logits of data near what those of fakes were of late, and the reverse (Tseng et al. 2021).

    arXiv:2104.03310, R_LC: E (D(x) - alpha_F)^2 + E (D(G(z)) - alpha_R)^2 with moving averages alpha of D on data and
    on fakes, over all ranks.
    """

    averages: Tensor  # (2,): of data, of fakes

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("averages", torch.zeros(2))

    @torch.no_grad()
    def follow(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """Move the averages towards this batch."""
        means = torch.stack([real_logits.float().mean(), fake_logits.float().mean()])
        if has_many_ranks():
            ranks = sum_over_ranks(means.new_ones(1))
            means = sum_over_ranks(means) / ranks
        self.averages.lerp_(means, 1 - self.decay)

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        alpha_real, alpha_fake = self.averages.unbind()
        return (real_logits - alpha_fake).square().mean() + (fake_logits - alpha_real).square().mean()


def spectrally_normalise(network: nn.Module) -> None:
    """Divide the weight of every layer by its largest singular value (Miyato et al. 2018, arXiv:1802.05957, Eq. 8).

    The value is followed by one power iteration at each use in training (Algorithm 1), from buffers of the layer. A
    convolution's weight counts as the matrix (out, in x height x width), as in the paper.
    """
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            parametrizations.spectral_norm(layer)
