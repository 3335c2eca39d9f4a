"""What an evaluation says, as a file: `evaluation/TIME.json` of a run directory, or the `out` of two folders.

    {"format": 1,
     "created": "2026-11-23T15:08:12Z",
     "run": "outputs/...", "model": "gan", "dataset": "mnist", "step": 4000, "weights": "averaged",    (null of folders)
     "split": "test", "split_sha256": "...", "seed": 0,
     "metrics": [
       {"name": "frechet",                      unique in the list
        "value": 3.21,                          null where it is not finite
        "interval": [3.05, 3.37],               95 %, bootstrap; null where there is none
        "standard_error": null,                 of the mean, where the value is one of the model's figures of examples
        "unit": "squared feature distance",
        "better": "lower",                      lower, higher, none
        "believed": true, "why_not": null,      else a sentence
        "protocol_id": "3fa1c0de",              the same for every number that was measured in the same way
        "protocol": {"id": "frechet/classifier", "kind": "sample", ...},
        "controls": {"real": 0.4, "noise": 310.0, "one_mode_removed": 9.8}},    finite ones alone
       ...],
     "voided": ["frechet: ..."],                one sentence for each metric whose controls came out wrong
     "notes": ["..."]}                          what was left out, and why

`protocol` holds all that another person needs for the same digits. Its keys, each where it applies: id, kind (sample,
likelihood, figure, baseline), bound ("exact", "upper bound"), extractor, extractor_sha256, extractor_accuracy,
is_fid, features, preprocessing, split, split_sha256, n_real, n_fake, seed, sampler (the options of `sample`), context,
bootstrap (what is resampled, how often; "none: ..." of other intervals). `protocol_id` is a hash of all of them. Two
values compare if their protocols do, the sampler apart (`same_protocol`).

`controls` are the same metric of things whose quality is known: "real" (held-out data in place of samples: the floor),
"noise" (the ceiling), "shuffled_labels", "one_mode_removed", "train" (copies of training data); of forecasts
"last_value", "given_again" and "other_window" (the draws for another one).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

FORMAT = 1
_FREE = ("n_control", "extractor_accuracy", "sampler")  # keys of a protocol that two comparable values may differ in


@dataclass(frozen=True)
class Metric:
    """One number with all that it takes to trust it."""

    name: str
    value: float
    interval: tuple[float, float] | None
    unit: str
    better: Literal["lower", "higher", "none"]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    controls: Mapping[str, float] = field(default_factory=dict)
    why_not: str | None = None  # why it must not be believed
    standard_error: float | None = None  # of a mean over examples

    @property
    def believed(self) -> bool:
        return self.why_not is None

    def doubted(self, reason: str) -> "Metric":
        """The same number, with one more reason not to believe it."""
        return replace(self, why_not=reason if self.why_not is None else f"{self.why_not}; {reason}")

    def to_json(self) -> dict[str, Any]:
        if not math.isfinite(self.value):
            return {**self.doubted("the value is not finite")._plain(), "value": None, "interval": None}
        if self.interval is not None and not all(map(math.isfinite, self.interval)):
            return {**self.doubted("too few examples for an interval")._plain(), "interval": None}
        return self._plain()

    @property
    def protocol_id(self) -> str:
        text = json.dumps(self.protocol, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _plain(self) -> dict[str, Any]:
        computed = {"believed": self.believed, "protocol_id": self.protocol_id}
        controls = {key: value for key, value in self.controls.items() if math.isfinite(value)}
        error = self.standard_error if math.isfinite(self.standard_error or 0.0) else None
        shown = {"controls": controls, "interval": self.interval and list(self.interval), "standard_error": error}
        return {**asdict(self), **computed, **shown}


def evaluation_record(metrics: Sequence[Metric], *, voided: Sequence[str], notes: Sequence[str], **about: Any) -> dict:
    """The JSON form of an evaluation; `about` are the keys from "created" to "seed"."""
    return {
        "format": FORMAT,
        **about,
        "metrics": [metric.to_json() for metric in metrics],
        "voided": list(voided),
        "notes": list(notes),
    }


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of the run directory `folder`, oldest first; files of another format are passed over."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in record_files(folder)]
    return [record for record in records if isinstance(record, dict) and record.get("format") == FORMAT]


def record_files(folder: Path) -> list[Path]:
    """Where the evaluations of a run directory are, oldest first; of one second, T.json before T-002.json."""
    return sorted((folder / "evaluation").glob("*.json"), key=lambda path: path.stem)


def same_protocol(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two protocols, as "n_fake: 2000 and 5000"; empty where their values compare."""
    keys = [key for key in {**one, **other} if key not in _FREE]
    return [f"{key}: {one.get(key)} and {other.get(key)}" for key in keys if one.get(key) != other.get(key)]
