"""Binary numbers told one after the other: NADE (Larochelle & Murray 2011, Eqs. 9 and 10), given a condition."""

import torch
from torch import Tensor, nn


class NADE(nn.Module):
    """Logits of x_i from x_j, j < i: V_i . sigmoid(c + sum_{j<i} W_j x_j), to be added to logits of one's own.

    `c` is a linear map of the condition, as in the RNN-NADE of Boulanger-Lewandowski et al. 2012.
    """

    def __init__(self, size: int, width: int, *, condition_dim: int):
        super().__init__()
        self.condition = nn.Linear(condition_dim, width)
        self.into = nn.Parameter(torch.randn(size, width) * 0.05)  # W, (D, H)
        self.out = nn.Parameter(torch.randn(size, width) * 0.05)  # V, (D, H)

    def forward(self, condition: Tensor, x: Tensor) -> Tensor:
        """(..., C) and (..., D) of 0 and 1 to logits (..., D), of which the i-th sees x_0 to x_{i-1}."""
        seen = x.unsqueeze(-1) * self.into  # (..., D, H)
        before = seen.cumsum(-2) - seen
        hidden = (self.condition(condition).unsqueeze(-2) + before).sigmoid()
        return (hidden * self.out).sum(-1)

    def draw(self, condition: Tensor, logits: Tensor, threshold: Tensor, temperature: float) -> Tensor:
        """(B, D) of 0 and 1: x_i is 1 where threshold_i, uniform in [0, 1), is below its probability."""
        state = self.condition(condition)  # (B, H)
        x = torch.zeros_like(logits)
        for i in range(logits.shape[1]):
            own = logits[:, i] + (state.sigmoid() * self.out[i]).sum(1)
            x[:, i] = (threshold[:, i] < (own / temperature).sigmoid()).to(x.dtype)
            state = state + x[:, i : i + 1] * self.into[i]
        return x
