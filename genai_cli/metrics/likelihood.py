"""Likelihoods in their units: nats, bits per dimension, bits per character; and which figures are bounds."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# What the keys of `evaluate` mean where a model does not say so itself (`GenerativeModel.figures`).
FIGURES = {
    "nll": "nats, exact -log p(x)",
    "bits_per_dim": "bits per dimension, exact -log p(x)",
    "negative_elbo": "nats, upper bound on -log p(x)",
    "negative_bound": "nats, upper bound on -log p(x)",
    "bound": "nats, upper bound on -log p(x)",
    "reconstruction": "nats, a part of the bound",
    "kl": "nats, a part of the bound",
    "squared_error": "squared error, of the reconstruction",
    "loss": "training objective, no likelihood",
    "real_probability": "probability, that the discriminator gives to data",
    "fake_probability": "probability, that the discriminator gives to samples",
}
LOOSE, LOOSE_LEAST = 0.02, 0.5  # of the best value known; and in nats
# Parts of a sum whose balance is free, and verdicts of an opponent.
HAS_NO_BETTER = ("reconstruction", "kl", "real_probability", "fake_probability")


@dataclass(frozen=True)
class Meaning:
    """What a held-out figure is: "nats, upper bound on -log p(x), density of dequantised data" taken apart."""

    unit: str
    bound: Literal["exact", "upper bound"] | None
    better: Literal["lower", "higher", "none"]
    is_dequantised_density: bool

    @property
    def is_likelihood(self) -> bool:
        return self.bound is not None


def read_meaning(key: str, words: str | None, *, is_tokens: bool = False) -> Meaning:
    """From a model's own `words` on its figure `key`, else from the common meaning of the key; of text, per token.

    Words begin with the unit, up to the first comma. "upper bound" or "exact" make it a likelihood; "density of
    dequantised data" makes it one per unit of the data as they are fed, so that bits per dimension can be told. What
    has a unit is better lower, unless the words say "higher is better".
    """
    if not words:
        words = FIGURES.get(re.sub(r"_iw_bound_\d+$", "_bound", key), "")
        words = words.replace("nats,", "nats per token,") if is_tokens else words
    unit, _, rest = words.partition(",")
    bound: Literal["exact", "upper bound"] | None = None
    if "upper bound" in rest:
        bound = "upper bound"
    elif "exact" in rest:
        bound = "exact"
    better: Literal["lower", "higher", "none"] = "lower" if words and key not in HAS_NO_BETTER else "none"
    better = "higher" if "higher is better" in rest else better
    return Meaning(unit.strip() or "as the model has it", bound, better, "density of dequantised data" in rest)


def loose_bounds(values: Mapping[str, float], meanings: Mapping[str, Meaning]) -> dict[str, str]:
    """A reason not to quote each upper bound that another value shows to be 2 %, and half a nat, too high."""
    likelihoods = [key for key, meaning in meanings.items() if meaning.is_likelihood]
    reasons = {}
    for key in likelihoods:
        unit = meanings[key].unit
        best = min((other for other in likelihoods if meanings[other].unit == unit), key=lambda other: values[other])
        gap = values[key] - values[best]
        if meanings[key].bound == "upper bound" and gap > max(LOOSE_LEAST, LOOSE * abs(values[best])):
            reasons[key] = f"the bound is loose: {best} is {gap:.4g} {unit} lower; quote that one"
    return reasons


def bits_per_dim(nats: float, num_dims: int, *, value_range: tuple[float, float], levels: int = 256) -> float:
    """Of a density over data of evenly spaced levels with a level's width of uniform noise (Theis et al. 2016, Eq. 13).

    P(x) = integral of p over the bin of x, of width w = (high - low) / (levels - 1) in each dimension, so by Jensen
    -log P(x) <= E_u[-log p(x + u)] - D log w: the Jacobian of the scaling from levels to the range. In bits, over D.
    """
    low, high = value_range
    width = (high - low) / (levels - 1)
    return (nats / num_dims - math.log(width)) / math.log(2)


def nats_to_bits(nats: float) -> float:
    return nats / math.log(2)


def bound_contradictions(
    values: dict[str, float], meanings: dict[str, Meaning], tolerance: dict[str, float]
) -> list[str]:
    """A sentence for each upper bound that lies below an exact value of the same data, in the same unit."""
    exact = [key for key, meaning in meanings.items() if meaning.bound == "exact"]
    bounds = [key for key, meaning in meanings.items() if meaning.bound == "upper bound"]
    return [
        f"{bound}: an upper bound of {values[bound]:.6g} below the exact {key} of {values[key]:.6g}"
        for key in exact
        for bound in bounds
        if meanings[key].unit == meanings[bound].unit
        and values[bound] < values[key] - tolerance[key] - tolerance[bound]
    ]
