"""How well samples of tokens keep the rules of their kind: molecules that can be, lines that are right, chorales.

Beside each figure stands that of held-out data, which may break rules too, and that of tokens drawn without a model.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genai_cli.commands.measure_samples import draw_samples
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Dataset, Spec, Split
from genai_cli.data.music_tokens import CHORAL_RANGES
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.data.windows import TokenWindows
from genai_cli.media.sheets import tokens_to_scores, tokens_to_texts
from genai_cli.metrics.bootstrap import OF_SHARES, interval_around, share_interval
from genai_cli.metrics.formal import formal_figures
from genai_cli.metrics.molecules import molecule_figures
from genai_cli.metrics.music import chorale_figures, frames_of, roll_figures
from genai_cli.metrics.record import Metric
from genai_cli.nn.random import SampleRandom, mix
from genai_cli.runs import TrainedRun

MOST = {"text": 64, "music": 64, "molecules": 30_000, "rolls": 64}  # samples drawn, if num_samples asks for more
LOWER_IS_BETTER = ("crossing", "parallels")
COUNTS = ("count", "lines", "judge")  # said in the protocol, no metrics
RESAMPLED = 50  # times, each of which reads all samples again
_SAMPLES = 24  # use of the seed


def has_rules(spec: Spec, dataset_name: str) -> bool:
    is_choral = spec.modality == "music" and (spec.tokenizer or {}).get("name") == "voices"
    return spec.modality in ("molecules", "rolls") or is_choral or dataset_name == "formal"


def sample_figures(samples: Tensor, spec: Spec, dataset_name: str) -> dict[str, Any]:
    """Name -> value, of `samples` (B, T); empty where the kind of data has no rules."""
    if not has_rules(spec, dataset_name):
        return {}
    if spec.modality == "molecules":
        return molecule_figures(tokens_to_texts(samples, spec))
    if spec.modality == "rolls":
        return roll_figures(samples)
    if spec.modality == "music":
        is_whole = [0 in row[1:] for row in samples.tolist()]
        return chorale_figures(score_frames(samples, spec), CHORAL_RANGES, is_whole=is_whole)
    return formal_figures(tokens_to_texts(samples, spec))


def draw_few(trained: TrainedRun, config: EvaluateConfig, device: torch.device) -> Tensor:
    """Drawn as `config.sampling` says, not more than there is time to look at."""
    count = min(config.num_samples, MOST[trained.spec.modality])
    return draw_samples(replace(config, num_samples=count), trained, device)


def measure_rules(
    trained: TrainedRun, dataset: Dataset, split: Split, samples: Tensor, config: EvaluateConfig,
    protocol: dict[str, Any],
) -> Iterator[Metric]:  # fmt: skip
    """The figures of `samples` (`draw_few`), those of the split as its control "real"."""
    spec, name = trained.spec, trained.config.dataset["name"]
    count = len(samples)
    noise = noise_like(samples, spec, seed=mix(config.seed, _SAMPLES))
    if spec.modality == "molecules":
        tokenizer = tokenizer_of(spec)
        known = set.union(*(all_molecules(dataset.load(part), tokenizer) for part in ("train", "validation")))
        figures = molecule_figures(tokens_to_texts(samples, spec), known)
    else:
        figures = sample_figures(samples, spec, name)
    of_data = sample_figures(pieces_of(split, spec, count), spec, name)
    of_noise = sample_figures(noise, spec, name)
    intervals = _intervals(figures, samples, spec, name, seed=config.seed)
    described = {
        **protocol, "kind": "sample", "n_fake": count, **{key: figures[key] for key in COUNTS if key in figures}
    }  # fmt: skip
    for key, value in figures.items():
        if key in COUNTS:
            continue
        controls = {word: other[key] for word, other in (("real", of_data), ("noise", of_noise)) if key in other}
        better = "lower" if key in LOWER_IS_BETTER else "none" if key == "novel" else "higher"
        interval, how = intervals.get(key, (None, "none: resampling repeats samples, of which this is a count"))
        yield Metric(
            key, value, interval, "share", better, {**described, "id": f"rules/{key}", "bootstrap": how}, controls
        )  # fmt: skip


def _intervals(
    figures: dict[str, Any], samples: Tensor, spec: Spec, name: str, *, seed: int
) -> dict[str, tuple[tuple[float, float], str]]:
    """(95 %, how) of the figures: of molecules Wilson's of what are shares of all samples, else by whole samples."""
    count = len(samples)
    if spec.modality == "molecules":
        return {
            key: (share_interval((torch.arange(count) < figures[key] * count - 0.5).double()), OF_SHARES)
            for key in ("valid", "well_formed")
        }
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randint(count, (count,), generator=generator) for _ in range(RESAMPLED)]
    again = [sample_figures(samples[rows], spec, name) for rows in draws]
    found = {key: [each[key] for each in again if key in each] for key in figures if key not in COUNTS}
    ends = {
        key: interval_around(figures[key], torch.tensor(values))
        for key, values in found.items()
        if len(values) > RESAMPLED / 2
    }
    return {key: ((max(0.0, low), high), f"samples, {RESAMPLED} times") for key, (low, high) in ends.items()}


def noise_like(samples: Tensor, spec: Spec, *, seed: int) -> Tensor:
    """As many random tokens; of rolls, notes that each sound as often as in the samples."""
    random = SampleRandom(seed, range(len(samples)))
    if spec.modality == "rolls":
        return (random.uniform(*samples.shape[1:]) < samples.mean()).to(samples.dtype)
    return random.integers(spec.vocabulary_size or 1, samples.shape[1])


def pieces_of(split: Split, spec: Spec, most: int) -> Tensor:
    """(N, L): the first `most` whole pieces of held-out data, or what a text has in that many windows."""
    if spec.modality in ("molecules", "rolls"):
        return split.fetch(torch.arange(min(most, len(split))))[spec.key].cpu()
    assert isinstance(split, TokenWindows), "music and texts are streams of tokens"
    tokens = split.tokens.cpu().long()
    if spec.modality == "text":
        return tokens[: most * split.length][None]
    starts = (tokens == 0).nonzero().flatten().tolist()
    parts = [tokens[start:stop] for start, stop in pairwise(starts)][:most]
    ended = [torch.cat([part, part.new_zeros(1)]) for part in parts]
    return torch.nn.utils.rnn.pad_sequence(ended, batch_first=True)


def all_molecules(split: Split, tokenizer: Any) -> set[str]:
    assert isinstance(tokenizer, SmilesTokenizer), "molecules are SMILES"
    return set(tokenizer.decode_all(split.tensors["tokens"].cpu()))


def score_frames(samples: Tensor, spec: Spec) -> list[Tensor]:
    """Each piece as (T, N) pitches."""
    num_voices = len((spec.tokenizer or {})["ranges"])
    scores = tokens_to_scores(samples, spec)
    return [frames_of([(n.start, n.length, n.pitch, n.voice) for n in score.notes], num_voices) for score in scores]
