"""Figures that samples have by themselves: molecules that are well formed, lines that are right, voices in range."""

from typing import Any

from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.data.music_tokens import CHORAL_RANGES
from genai_cli.media.sheets import tokens_to_scores, tokens_to_texts
from genai_cli.metrics.formal import formal_figures
from genai_cli.metrics.molecules import molecule_figures
from genai_cli.metrics.music import chorale_figures, frames_of


def sample_figures(samples: Tensor, spec: Spec, dataset_name: str) -> dict[str, Any]:
    """Name -> value, of `samples` (B, T); empty where there are none."""
    if spec.modality == "molecules":
        return molecule_figures(tokens_to_texts(samples, spec))
    if spec.modality == "music" and (spec.tokenizer or {}).get("name") == "voices":
        return chorale_figures(score_frames(samples, spec), CHORAL_RANGES)
    if dataset_name == "formal":
        return formal_figures(tokens_to_texts(samples, spec))
    return {}


def score_frames(samples: Tensor, spec: Spec) -> list[Tensor]:
    """Each piece as (T, N) pitches."""
    num_voices = len((spec.tokenizer or {})["ranges"])
    scores = tokens_to_scores(samples, spec)
    return [frames_of([(n.start, n.length, n.pitch, n.voice) for n in score.notes], num_voices) for score in scores]
