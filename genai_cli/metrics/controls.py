"""A metric is believed only if it says the known of what is known: real data good, noise bad, a lost mode lost.

Every metric is measured a second time with things in place of the samples whose quality is no question. Where one of
these comes out wrong, the metric cannot tell good from bad on these data at this size, whatever it says of the samples.
"""

from collections.abc import Sequence

from genai_cli.metrics.record import Metric

# Name of a metric -> the orders that its controls must have, each "better" before "worse".
ORDERS: dict[str, tuple[tuple[str, str], ...]] = {
    "frechet": (("real", "noise"), ("real", "one_mode_removed")),
    "fid": (("real", "noise"), ("real", "one_mode_removed")),
    "kid": (("real", "noise"), ("real", "one_mode_removed")),
    "energy": (("real", "noise"), ("real", "one_mode_removed")),
    "precision": (("real", "noise"),),
    "density": (("real", "noise"),),
    "recall": (("real", "half_removed"),),
    "coverage": (("real", "noise"), ("real", "one_mode_removed")),
    "modes": (("real", "one_mode_removed"),),
    "mode_divergence": (("real", "one_mode_removed"),),
    "memorisation": (("real", "train"),),
    "copied_50": (("real", "train"),),
    **{
        f"{name}_{figure}": (("real", "shuffled_labels"),)
        for name in ("logp", "qed", "weight")
        for figure in ("error", "correlation")
    },
    "agreement": (("real", "shuffled_labels"),),
    "classifier_accuracy_score": (("real", "shuffled_labels"),),
}
SEEN = 0.02  # of recall: less than this is no sign of a lost mode
MEANS = {
    "real": "held-out data",
    "noise": "noise",
    "one_mode_removed": "data without one of their modes (of many: a tenth)",
    "half_removed": "data without half of their modes",
    "train": "copies of training data",
    "shuffled_labels": "shuffled labels",
    "repeated": "one sample over and over",
}


def void(metrics: Sequence[Metric]) -> tuple[list[Metric], list[str]]:
    """The metrics, those whose controls are wrong no longer believed, and one sentence for each of these."""
    judged, sentences = [], []
    for metric in metrics:
        reasons = [
            f"{MEANS[worse]} ({metric.controls[worse]:.4g}) is not told from {MEANS[better]} "
            f"({metric.controls[better]:.4g})"
            for better, worse in ORDERS.get(metric.name, ())
            if worse in metric.controls and not _is_better(metric, better, worse)
        ]
        for reason in reasons:
            metric = metric.doubted(f"its control is wrong: {reason}")
            sentences.append(f"{metric.name}: {reason}")
        judged.append(metric)
    return judged, sentences


def blind_spots(metrics: Sequence[Metric]) -> list[str]:
    """What a number does not see on these data, though it may be believed for the rest."""
    return [
        f"{metric.name}: one lost mode would hardly show ({metric.controls['one_mode_removed']:.3g} without it, "
        f"{metric.controls['real']:.3g} with all); modes and coverage see it"
        for metric in metrics
        if metric.name == "recall" and metric.controls["real"] - metric.controls["one_mode_removed"] < SEEN
    ]


def _is_better(metric: Metric, better: str, worse: str) -> bool:
    sign = -1 if metric.better == "lower" else 1
    return sign * metric.controls[better] > sign * metric.controls[worse]
