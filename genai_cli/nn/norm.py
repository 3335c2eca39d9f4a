"""Batch normalisation over the whole batch, however many processes share it (Ioffe & Szegedy 2015, arXiv:1502.03167).

torch's `SyncBatchNorm` does the same but refuses the CPU. Gradient accumulation is another matter: each micro-batch is
normalised by its own statistics, for the later ones are not known yet.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.ranks import has_many_ranks, sum_over_ranks


class BatchNorm(nn.Module):
    """Normalises each of C channels of (B, C) or (B, C, ...) by the mean and variance over all else, then scales it.

    In training the statistics are the batch's, over all ranks; in evaluation they are the running ones, which move
    towards the batch's (with the unbiased variance) by `momentum` at every call in training.
    """

    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,)

    def __init__(self, num_channels: int, *, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and has_many_ranks():
            return self._normalise_over_ranks(x)
        running = (self.running_mean, self.running_var)
        return F.batch_norm(x, *running, self.weight, self.bias, self.training, self.momentum, self.eps)

    def _normalise_over_ranks(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = [0, *range(2, x.dim())]  # all but the channels
        per_channel = (1, -1, *[1] * (x.dim() - 2))  # the shape that broadcasts (C,) over x

        # Two sums, and not E[x^2] - E[x]^2 in one, which cancels where the mean is large beside the deviation.
        ones = values.new_full((1,), values.numel() // values.shape[1])
        count, total = sum_over_ranks(torch.cat([ones, values.sum(dims)])).tensor_split([1])
        mean = total / count  # (C,)
        centred = values - mean.view(per_channel)
        var = sum_over_ranks(centred.square().sum(dims)) / count  # (C,), biased

        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()  # (C,)
        return (centred * scale.view(per_channel) + self.bias.view(per_channel)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"
