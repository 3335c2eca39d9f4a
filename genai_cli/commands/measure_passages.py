"""How much the texts that a model writes repeat themselves, and the text that it learned."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from genai_cli.commands.sampling import sampling_options
from genai_cli.config import EvaluateConfig
from genai_cli.data.base import Dataset, Split
from genai_cli.data.tokenizers import Tokenizer, tokenizer_of
from genai_cli.data.windows import TokenWindows
from genai_cli.engine.sampling import draw
from genai_cli.metrics.bootstrap import REPLICATES, mean_interval
from genai_cli.metrics.passages import COPY, copied, distinct, self_bleu, words_of
from genai_cli.metrics.record import Metric
from genai_cli.nn.random import SampleRandom, mix
from genai_cli.runs import TrainedRun

MOST = 64  # texts that are drawn, if num_samples asks for more
LENGTH = 400  # tokens of each, where the model takes a length
_PART = 1 << 20  # tokens of the training text that are read at a time
_SAMPLES = 25  # use of the seed


def measure_passages(
    trained: TrainedRun, dataset: Dataset, split: Split, config: EvaluateConfig, protocol: dict[str, Any],
    notes: list[str], device: torch.device,
) -> Iterator[Metric]:  # fmt: skip
    """Beside samples drawn as `config.sampling` says: as many passages of held-out ("real") and of training text
    ("train"), random tokens ("noise"), and one sample over and over ("repeated")."""
    train = dataset.load("train")
    count = min(config.num_samples, MOST)
    if not isinstance(split, TokenWindows) or not isinstance(train, TokenWindows) or count < 2:
        notes.append("passages: of texts that are read one after the other, and of two samples or more")
        return
    samples = _samples(trained, count, config, device)
    tokenizer = tokenizer_of(trained.spec)
    ours = [tokenizer.decode(row[row >= 0]) for row in samples]
    length = samples.shape[1]
    noise = SampleRandom(mix(config.seed, _SAMPLES), range(count)).integers(tokenizer.vocabulary_size, length)
    others = {
        "real": passages_of(split, count, length, tokenizer),
        "train": passages_of(train, count, length, tokenizer),
        "noise": [tokenizer.decode(row) for row in noise],
        "repeated": [ours[0]] * count,
    }
    described = {
        **protocol, "kind": "sample", "n_fake": count, "length": f"{length} tokens",
        "words": "runs of letters; Chinese characters and marks singly",
    }  # fmt: skip
    yield from _repetition(ours, others, described, config.seed)
    if max(map(len, others["train"])) < COPY:
        notes.append(f"copied_{COPY}: texts of {length} tokens are shorter than {COPY} characters")
        return
    shares = torch.tensor(copied(ours, text_of(train, tokenizer)))
    controls = {
        name: sum(copied(others[name], text_of(train, tokenizer))) / count for name in ("real", "train", "noise")
    }
    described |= {"id": f"passages/copied_{COPY}", "passage": f"{COPY} characters", "bootstrap": _bootstrap()}
    interval = mean_interval(shares, seed=config.seed)
    yield Metric(
        f"copied_{COPY}", shares.double().mean().item(), interval, "share of passages in the training text", "lower",
        described, controls,
    )  # fmt: skip


def _samples(trained: TrainedRun, count: int, config: EvaluateConfig, device: torch.device) -> Tensor:
    parameters = inspect.signature(trained.model.sample).parameters
    takes_length = "length" in parameters and not trained.model.is_bound_to_window
    options = {"length": max(LENGTH, trained.spec.shape[0])} if takes_length else {}
    options |= sampling_options(config.sampling, trained)
    seed = mix(config.seed, _SAMPLES)
    return draw(trained.model, count, seed=seed, batch_size=config.batch_size, device=device, options=options)


def _repetition(
    ours: Sequence[str], others: dict[str, list[str]], described: dict[str, Any], seed: int
) -> Iterator[Metric]:
    words = {name: [words_of(text) for text in texts] for name, texts in others.items()}
    fake = [words_of(text) for text in ours]
    for n in (1, 2, 3):
        controls = {name: distinct(texts, n) for name, texts in words.items()}
        protocol = {**described, "id": f"passages/distinct_{n}"}
        yield Metric(
            f"distinct_{n}", distinct(fake, n), None, f"share of {n}-grams of words", "none", protocol, controls
        )
    scores = torch.tensor(self_bleu(fake))
    controls = {name: sum(self_bleu(texts)) / len(texts) for name, texts in words.items()}
    protocol = {**described, "id": "passages/self_bleu", "bootstrap": _bootstrap()}
    interval = mean_interval(scores, seed=seed)
    yield Metric(
        "self_bleu", scores.double().mean().item(), interval, "BLEU-4, others as references", "none", protocol, controls
    )


def _bootstrap() -> str:
    return f"texts, {REPLICATES} times"


def passages_of(split: TokenWindows, count: int, length: int, tokenizer: Tokenizer) -> list[str]:
    """`count` evenly spaced passages of `length` tokens; they overlap where the text is short."""
    last = max(len(split.tokens) - length, 0)
    starts = [last * i // max(count - 1, 1) for i in range(count)]
    return [tokenizer.decode(split.tokens[start : start + length].cpu()) for start in starts]


def text_of(split: TokenWindows, tokenizer: Tokenizer) -> Iterator[str]:
    """The text of a split in parts, so that a long one is never held whole."""
    for start in range(0, len(split.tokens), _PART):
        yield tokenizer.decode(split.tokens[start : start + _PART].cpu())
