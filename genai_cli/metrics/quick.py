"""A score that a training run can afford every few hundred steps, for models without a likelihood to go by.

The Frechet distance of a few hundred samples from as many validation examples, on features that need no training: of
images those of the fixed random network (`metrics/features.py`), of points and series the numbers themselves, of sound
the loudness of its bands (`metrics/sounds.py`). It is not the number that `genai evaluate` reports; it ranks the
checkpoints of one run, sees a collapse at once, and is a function of the weights and the seed alone, so that a resumed
run computes the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from genai_cli.data.base import Spec, Split
from genai_cli.metrics.features import random_extractor
from genai_cli.metrics.frechet import frechet_distance, moments
from genai_cli.metrics.sounds import as_vectors

NAME = "frechet"  # under which the score is logged and the best checkpoint chosen
MOST_SAMPLES = 1000
_AT_ONCE = 250


def has_quick_score(spec: Spec) -> bool:
    return spec.modality in ("image", "points", "series", "audio")


class QuickScore:
    """Made once for a run: `score(draw)` for each evaluation."""

    def __init__(self, spec: Spec, validation: Split, *, num_examples: int, device: torch.device):
        """Features of the first `num_examples` of the validation split, or of all there are."""
        self.num_samples = min(num_examples, MOST_SAMPLES, len(validation))
        self.featurise: Callable[[Tensor], Tensor] = lambda x: as_vectors(x, spec)
        if spec.modality == "image":
            extractor = random_extractor(spec.shape)
            extractor.network.to(device)
            self.featurise = extractor.features
        positions = torch.arange(self.num_samples).split(_AT_ONCE)
        self.reference = moments(torch.cat([self.featurise(validation.fetch(rows)[spec.key]) for rows in positions]))

    def score(self, draw: Callable[[int], Tensor]) -> dict[str, float]:
        """{"frechet": distance} of the samples that `draw(count)` returns, (count, *spec.shape)."""
        samples = draw(self.num_samples)
        if not samples.isfinite().all():
            return {NAME: float("inf")}
        return {NAME: frechet_distance(self.reference, moments(self.featurise(samples)))}
