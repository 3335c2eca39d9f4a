"""Mixtures of discretised logistics over the levels of pixels (Salimans et al. 2017, PixelCNN++, arXiv:1701.05517).

A continuous value from sum_k pi_k logistic(mu_k, s_k) is rounded to the nearest of `levels` evenly spaced ones in
[-1, 1]; what would fall outside belongs to the first and the last (Eq. 2). The channels of a pixel share the component,
and the means of the later ones are linear in the values of the former (Eq. 3).

The probability of a level is a difference of two sigmoids, which the paper replaces by a density where it underflows.
Here it is exact everywhere, by sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose logarithm loses
nothing. So the probabilities of all levels sum to one.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.nn.random import RowRandom

SMALLEST_LOG_SCALE = -7.0  # of a scale, in units of the range [-1, 1]: a fourteenth of a bin of 256 levels


class LogisticMixture(NamedTuple):
    """Parameters of a mixture of K components for each pixel of images of C channels."""

    logits: Tensor  # (B, K, H, W), of the weights
    mean: Tensor  # (B, K, C, H, W), before what former channels add
    log_scale: Tensor  # (B, K, C, H, W)
    coefficients: Tensor  # (B, K, C (C - 1) / 2, H, W), in (-1, 1): of channel 0 on 1, of 0 on 2, of 1 on 2, ...


def num_parameters(channels: int, num_components: int) -> int:
    """Numbers that a network gives for each pixel: 10 K for colours, 3 K for grey."""
    return num_components * (1 + 2 * channels + channels * (channels - 1) // 2)


def logistic_mixture(parameters: Tensor, channels: int) -> LogisticMixture:
    """From what a network gives, (B, num_parameters, H, W)."""
    per_component = num_parameters(channels, 1)
    parts = parameters.float().unflatten(1, (-1, per_component))  # (B, K, P, H, W)
    logits, mean, log_scale, coefficients = parts.split(
        [1, channels, channels, per_component - 1 - 2 * channels], dim=2
    )
    return LogisticMixture(logits.squeeze(2), mean, log_scale.clamp(min=SMALLEST_LOG_SCALE), torch.tanh(coefficients))


def log_probability(mixture: LogisticMixture, x: Tensor, *, levels: int = 256) -> Tensor:
    """log p of each pixel, all channels of it together, in nats: x (B, C, H, W) in [-1, 1] to (B, H, W).

    `x` is taken for the nearest level.
    """
    x = quantise(x, levels).unsqueeze(1)  # (B, 1, C, H, W)
    centred = x - linked_means(mixture, x)  # (B, K, C, H, W)
    inverse_scale = torch.exp(-mixture.log_scale)
    half_bin = 1 / (levels - 1)
    above = (centred + half_bin) * inverse_scale
    below = (centred - half_bin) * inverse_scale
    log_below_top = F.logsigmoid(above)  # log P(value < upper edge)
    log_above_bottom = F.logsigmoid(-below)  # log P(value > lower edge)
    log_rest = torch.log(-torch.expm1(-2 * half_bin * inverse_scale))
    inside = log_below_top + log_above_bottom + log_rest
    log_channel = torch.where(x <= -1, log_below_top, torch.where(x >= 1, log_above_bottom, inside))
    return (mixture.logits.log_softmax(1) + log_channel.sum(2)).logsumexp(1)


def linked_means(mixture: LogisticMixture, x: Tensor) -> Tensor:
    """The means given the former channels' values `x` (B, 1 or K, C, H, W): (B, K, C, H, W) (Eq. 3)."""
    means, start = [mixture.mean[:, :, 0]], 0
    for channel in range(1, mixture.mean.shape[2]):
        weights = mixture.coefficients[:, :, start : start + channel]  # (B, K, channel, H, W)
        means.append(mixture.mean[:, :, channel] + (weights * x[:, :, :channel]).sum(2))
        start += channel
    return torch.stack(means, dim=2)


def draw(mixture: LogisticMixture, random: RowRandom, *, levels: int = 256) -> Tensor:
    """A sample of every pixel, (B, C, H, W), rounded to the levels."""
    height, width = mixture.logits.shape[2:]
    channels = mixture.mean.shape[2]
    cumulative = mixture.logits.softmax(1).cumsum(1)  # (B, K, H, W)
    threshold = random.uniform(1, height, width) * cumulative[:, -1:]
    component = (cumulative <= threshold).sum(1, keepdim=True).clamp(max=cumulative.shape[1] - 1)  # (B, 1, H, W)
    noise = random.uniform(channels, height, width).clamp(1e-6, 1 - 1e-6).logit()  # standard logistic

    def of_component(parameter: Tensor) -> Tensor:
        """(B, K, C', H, W) to (B, C', H, W), of the component that was drawn."""
        index = component.unsqueeze(2).expand(-1, -1, parameter.shape[2], -1, -1)
        return parameter.gather(1, index).squeeze(1)

    chosen = LogisticMixture(mixture.logits[:, :1], *(of_component(part).unsqueeze(1) for part in mixture[1:]))  # K = 1
    deviation = noise * chosen.log_scale.squeeze(1).exp()  # (B, C, H, W)
    x = deviation.new_zeros(deviation.shape)
    for channel in range(channels):  # each needs those before it
        mean = linked_means(chosen, x.unsqueeze(1)).squeeze(1)
        value = quantise((mean + deviation)[:, channel].clamp(-1, 1), levels)
        x = torch.cat([x[:, :channel], value.unsqueeze(1), x[:, channel + 1 :]], dim=1)
    return x


def mean(mixture: LogisticMixture) -> Tensor:
    """The mean of the continuous mixture, (B, C, H, W), kept within [-1, 1]: what a picture without noise shows."""
    means = mixture.mean[:, :, :1]
    for channel in range(1, mixture.mean.shape[2]):
        padded = F.pad(means, (0, 0, 0, 0, 0, mixture.mean.shape[2] - channel))
        means = torch.cat([means, linked_means(mixture, padded)[:, :, channel : channel + 1]], dim=2)
    return (mixture.logits.softmax(1).unsqueeze(2) * means).sum(1).clamp(-1, 1)


def quantise(x: Tensor, levels: int) -> Tensor:
    """[-1, 1] to the nearest of `levels` evenly spaced values from -1 to 1."""
    half = (levels - 1) / 2
    return ((x + 1) * half).round() / half - 1  # a division, so that the last level is 1 exactly
