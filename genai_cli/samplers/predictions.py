"""What a network may predict about x_t = alpha_t x_0 + sigma_t eps, alpha_t^2 + sigma_t^2 = 1.

Notation of Salimans & Ho 2022 (arXiv:2202.00512).
"""

from typing import Literal

from torch import Tensor

Objective = Literal["eps", "x0", "v"]


def prediction_target(objective: Objective, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should have said. The velocity is v = alpha eps - sigma x_0 (Sec. 4)."""
    if objective == "eps":
        return eps
    return x0 if objective == "x0" else alpha * eps - sigma * x0


def prediction_to_x0(
    objective: Objective, prediction: Tensor, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float
) -> Tensor:
    """What a prediction about x_t says of x_0."""
    if objective == "eps":
        return (x_t - sigma * prediction) / alpha
    return prediction if objective == "x0" else alpha * x_t - sigma * prediction


def min_snr_weight(objective: Objective, alpha: Tensor, sigma: Tensor, *, gamma: float) -> Tensor:
    """The weight of a squared error that counts as min(SNR, gamma) on x_0 (Hang et al. 2023, arXiv:2303.09556).

    An error of eps is one of x_0 times SNR = alpha^2 / sigma^2, an error of v one times SNR + 1.
    """
    snr = (alpha / sigma) ** 2
    on_x0 = snr.clamp(max=gamma)
    return {"x0": on_x0, "eps": on_x0 / snr, "v": on_x0 / (snr + 1)}[objective]
