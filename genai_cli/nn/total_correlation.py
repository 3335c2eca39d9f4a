"""How far the coordinates of codes are from independent: TC(z) = KL(q(z) || prod_d q(z_d)), with q(z) that of all data.

Two estimates: from the densities of a batch (Chen et al. 2018, arXiv:1802.04942), and from a classifier that tells
codes from codes with their coordinates shuffled (Kim & Mnih 2018, arXiv:1802.05983).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genai_cli.nn.gaussians import LOG_2PI, log_standard_normal
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import gather_over_ranks, own_rows


class Decomposition(NamedTuple):
    """Three parts, (B,) each, whose sum is log q(z | x) - log p(z): in the mean the KL term (Eq. 2)."""

    mutual_information: Tensor  # log q(z | x) - log q(z)
    total_correlation: Tensor  # log q(z) - sum_d log q(z_d)
    dimension_wise: Tensor  # sum_d log q(z_d) - log p(z_d)


def decompose(z: Tensor, mu: Tensor, logvar: Tensor) -> Decomposition:
    """Of draws z (B, D) from their posteriors, with q(z) the mixture of the posteriors of the batch, of all ranks.

    This is the paper's minibatch-weighted sampling with the batch for the whole of the data (N = M): another N adds a
    constant to two of the parts and changes no gradient. It cannot tell more than log M nats of mutual information.
    """
    mus, logvars = gather_over_ranks(mu), gather_over_ranks(logvar)  # (M, D) each
    deviation = (z[:, None] - mus).square() * torch.exp(-logvars)
    log_density = -0.5 * (deviation + logvars + LOG_2PI)  # (B, M, D): log q(z_d | x_j)
    log_count = math.log(len(mus))
    log_joint = log_density.sum(2).logsumexp(1) - log_count  # (B,)
    log_marginals = (log_density.logsumexp(1) - log_count).sum(1)  # (B,)
    log_posterior = -0.5 * ((z - mu).square() * torch.exp(-logvar) + logvar + LOG_2PI).sum(1)
    return Decomposition(log_posterior - log_joint, log_joint - log_marginals, log_marginals - log_standard_normal(z))


def shuffle_coordinates(z: Tensor, random: RowRandom) -> Tensor:
    """Each coordinate of (B, D) given to another row by a permutation of its own, over the rows of all ranks.

    The rows become draws of prod_d q(z_d) (Algorithm 1 of FactorVAE).
    """
    order = gather_over_ranks(random.uniform(z.shape[1])).argsort(0)  # (R B, D): a permutation in each column
    return own_rows(gather_over_ranks(z).gather(0, order), len(z))
