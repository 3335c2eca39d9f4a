"""From curves of logged numbers to diseases: each test is a function, and its thresholds stand beside it.

Nothing is found before it has shown in `patience` values in a row. A test answers with the step since when and the
evidence in words, or None. Plain Python without torch: it runs at every log line and over `metrics.jsonl` afterwards.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

LENGTH = 40  # values of each curve that are remembered, beside the first

Point = tuple[int, float]


@dataclass(frozen=True)
class Facts:
    """What the tests know of a run beside its curves."""

    total_steps: int
    monitor: str | None = None  # the key of the held-out figure to be lowered
    codebook_size: int | None = None
    patience: int = 3


@dataclass(frozen=True)
class Symptom:
    since: int
    evidence: str


class Curves:
    """The newest values of every logged number, and its first."""

    def __init__(self, points: Mapping[str, Sequence[Sequence[float]]] | None = None):
        self.points: dict[str, list[Point]] = {}
        for key, curve in (points or {}).items():
            self.points[key] = [(int(step), float(value)) for step, value in curve]

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        for key, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                curve = self.points.setdefault(key, [])
                curve.append((step, float(value)))
                if len(curve) > LENGTH:
                    del curve[1]  # the first stays: how it all began

    def of(self, key: str) -> list[Point]:
        return self.points.get(key, [])

    def last(self, key: str, count: int) -> list[Point]:
        """The newest `count` points, or none where there are fewer."""
        curve = self.of(key)
        return curve[-count:] if len(curve) >= count else []

    def ending(self, name: str) -> Iterator[tuple[str, list[Point]]]:
        """(group, curve) for every GROUP/name of training."""
        for key, curve in self.points.items():
            group, _, last = key.rpartition("/")
            if last == name and group != "validation":
                yield group, curve

    def to_json(self) -> dict[str, list[Point]]:
        return self.points


def mode_collapse(curves: Curves, facts: Facts) -> Symptom | None:
    """Not in the first fifth of a run: what has hardly learned makes one thing only, and that is no collapse."""
    limits = {"samples/spread": 0.2, "samples/modes": 0.06, "samples/classes": 0.2}
    words = {
        "samples/spread": "the distance between two samples",
        "samples/modes": "the effective number of different nearest training examples",
        "samples/classes": "the effective number of classes",
    }
    for key, limit in limits.items():
        recent = curves.last(key, facts.patience)
        if recent and recent[0][0] > facts.total_steps / 5 and all(value < limit for _, value in recent):
            return Symptom(recent[0][0], f"{words[key]} is {recent[-1][1]:.2g} of what it is in held-out data")
    return None


def discriminator_wins(curves: Curves, facts: Facts) -> Symptom | None:
    for group, real in curves.ending("real_probability"):
        fake = curves.last(f"{group}/fake_probability", facts.patience)
        real = real[-len(fake) :] if fake else []
        if real and all(value > 0.98 for _, value in real) and all(value < 0.02 for _, value in fake):
            verdict = f"data a probability of {real[-1][1]:.4f} and fakes {fake[-1][1]:.4f}"
            return Symptom(real[0][0], f"{group} gives {verdict}")
    return None


def generator_wins(curves: Curves, facts: Facts) -> Symptom | None:
    for group, real in curves.ending("real_probability"):
        fake = curves.last(f"{group}/fake_probability", facts.patience)
        real = real[-len(fake) :] if fake else []
        if real and all(there > here + 0.1 for (_, here), (_, there) in zip(real, fake, strict=True)):
            verdict = f"fakes a probability of {fake[-1][1]:.2f} and data {real[-1][1]:.2f}"
            return Symptom(real[0][0], f"{group} gives {verdict}")
    return None


def frozen_player(curves: Curves, facts: Facts) -> Symptom | None:
    """Not where a schedule has brought the rate down to a hundredth of its height: then nothing need move."""
    for group, norms in curves.ending("weight_norm"):
        recent = norms[-facts.patience - 1 :]
        rates = [rate for _, rate in curves.of(f"{group}/learning_rate")]
        is_over = bool(rates) and max(rates) > 0 and rates[-1] < 0.01 * max(rates)
        if len(recent) > facts.patience and len({value for _, value in recent}) == 1 and not is_over:
            rate = f" at a learning rate of {rates[-1]:g}" if rates else ""
            return Symptom(recent[0][0], f"the weights of {group} are what they were at step {recent[0][0]}{rate}")
    return None


def posterior_collapse(curves: Curves, facts: Facts) -> Symptom | None:
    """Not in the first fifth of a run: codes begin by saying nothing."""
    units = curves.last("codes/active_units", facts.patience)
    information = curves.last("codes/mutual_information", facts.patience)
    if units and units[0][0] <= facts.total_steps / 5:
        return None
    if units and all(value == 0 for _, value in units):
        return Symptom(units[0][0], "no coordinate of the codes varies with the data (0 active units)")
    if information and all(value < 0.1 for _, value in information):
        return Symptom(information[0][0], f"codes and data share {information[-1][1]:.2g} nats of information")
    return None


def dead_codebook(curves: Curves, facts: Facts) -> Symptom | None:
    if facts.codebook_size is None:
        return None
    limit = max(1.5, 0.02 * facts.codebook_size)
    for key, curve in curves.points.items():
        recent = curve[-facts.patience :]
        is_late = len(recent) == facts.patience and recent[0][0] > facts.total_steps / 10
        name = key.rpartition("/")[2]  # perplexity, or of several levels perplexity_0 and so on
        if "perplexity" in name and is_late and all(value < limit for _, value in recent):
            words = f"the codes use {recent[-1][1]:.1f} of {facts.codebook_size} entries ({name})"
            return Symptom(recent[0][0], words)
    return None


def memorisation(curves: Curves, facts: Facts) -> Symptom | None:
    """Six different nearest training examples at least: less are a mode collapse, and prove nothing."""
    closer = curves.last("samples/closer_to_training", facts.patience)
    distinct = curves.last("samples/distinct_nearest", facts.patience)
    copied = curves.last("samples/copied", facts.patience)
    if any(value < 6 for _, value in distinct):
        return None
    if closer and all(value >= 0.9 for _, value in closer):
        words = f"{closer[-1][1]:.0%} of the samples are closer to training data than to as many held-out data"
        return Symptom(closer[0][0], f"{words} (half would be, of new ones)")
    if copied and all(value > 0.3 for _, value in copied):
        words = f"{copied[-1][1]:.0%} more of the samples than of held-out data are copies of training data"
        return Symptom(copied[0][0], words)
    return None


def overfitting(curves: Curves, facts: Facts) -> Symptom | None:
    return _held_out_rises(curves, facts) or _discriminator_knows_by_heart(curves, facts)


def _held_out_rises(curves: Curves, facts: Facts) -> Symptom | None:
    """The held-out figure is above its best by a tenth of all it had gained, while training went on to gain."""
    if facts.monitor is None:
        return None
    held_out = curves.of(f"validation/{facts.monitor}")
    if len(held_out) <= facts.patience:
        return None
    best_step, best = min(held_out, key=lambda point: point[1])
    limit = best + max(0.1 * (held_out[0][1] - best), 0.02 * abs(best))
    recent = held_out[-facts.patience :]
    trained = curves.of(f"model/{facts.monitor}") or curves.of("model/loss")
    before = [value for step, value in trained if step <= best_step]
    if (
        before
        and recent[0][0] > best_step
        and all(value > limit for _, value in recent)
        and trained[-1][1] < before[-1]
    ):
        rise = f"{facts.monitor} of held-out data rose from {best:.4g} at step {best_step} to {recent[-1][1]:.4g}"
        return Symptom(best_step, f"{rise}, that of training data fell from {before[-1]:.4g} to {trained[-1][1]:.4g}")
    return None


def _discriminator_knows_by_heart(curves: Curves, facts: Facts) -> Symptom | None:
    """r_v = (D(train) - D(validation)) / (D(train) - D(fake)): 0 where it knows no more of one than the other, to 1."""
    held_out = curves.last("validation/real_probability", facts.patience)
    for _, curve in curves.ending("real_probability"):
        ratios = []
        for step, unseen in held_out:
            seen = next((value for at, value in reversed(curve) if at <= step), None)
            fake = next((value for at, value in reversed(curves.of("validation/fake_probability")) if at <= step), None)
            if seen is not None and fake is not None and seen - fake > 0.2:
                ratios.append((seen - unseen) / (seen - fake))
        if ratios and len(ratios) == facts.patience and min(ratios) > 0.6:
            return Symptom(held_out[0][0], f"the discriminator takes unseen data for fakes (r_v = {ratios[-1]:.2f})")
    return None


def exploding_gradients(curves: Curves, facts: Facts) -> Symptom | None:
    """One value is enough: it is the mean of a whole log period, in which a single burst is less than it was.

    It must be the largest by far: gradients that had vanished may come back.
    """
    for group, norms in curves.ending("gradient_norm"):
        if len(norms) > max(facts.patience, 3):
            usual = max(median(value for _, value in norms), 1e-3)
            step, largest = max(norms[-facts.patience - 1 :], key=lambda point: point[1])
            others = max(value for at, value in norms if at != step)
            if largest > 100 * usual and largest > 2 * others:
                return Symptom(step, f"the gradient norm of {group} is {largest:.3g}, it is otherwise {usual:.3g}")
    return None


def vanishing_gradients(curves: Curves, facts: Facts) -> Symptom | None:
    for group, norms in curves.ending("gradient_norm"):
        recent = norms[-facts.patience :]
        limit = max(1e-10, 1e-6 * max(value for _, value in norms))
        if len(recent) == facts.patience and all(value < limit for _, value in recent):
            return Symptom(recent[0][0], f"the gradient norm of {group} is {recent[-1][1]:.2g}")
    return None


def high_learning_rate(curves: Curves, facts: Facts) -> Symptom | None:
    """Weights that soon grow tenfold, or a loss worse than it began; the latter of models with one objective alone.

    Over a long run weights may grow as far and be well: only the first fifth, or the first few log lines, count.
    Players of a game may lose for good reasons. A training objective may change its weights as it goes (a KL term that
    warms up), the monitored figure may not: it is taken where training logs it.
    """
    for group, norms in curves.ending("weight_norm"):
        (start, first), (step, newest) = norms[0], norms[-1]
        is_early = len(norms) <= facts.patience + 1 or step <= facts.total_steps / 5
        if start == 0 and is_early and newest > 10 * first > 0:
            return Symptom(0, f"the norm of the weights of {group} grew from {first:.3g} to {newest:.3g}")
    key = f"model/{facts.monitor}" if curves.of(f"model/{facts.monitor}") else "model/loss"
    curve = curves.of(key)
    if len(curve) > facts.patience:
        first, best = curve[0][1], min(value for _, value in curve)
        recent = curve[-facts.patience :]
        if all(value > first + 0.05 * max(first - best, abs(first)) for _, value in recent):
            return Symptom(recent[0][0], f"{key} is {recent[-1][1]:.4g}, it began with {first:.4g}")
    return None


TESTS: dict[str, Callable[[Curves, Facts], Symptom | None]] = {
    "mode_collapse": mode_collapse,
    "discriminator_wins": discriminator_wins,
    "generator_wins": generator_wins,
    "frozen_player": frozen_player,
    "posterior_collapse": posterior_collapse,
    "dead_codebook": dead_codebook,
    "memorisation": memorisation,
    "overfitting": overfitting,
    "exploding_gradients": exploding_gradients,
    "vanishing_gradients": vanishing_gradients,
    "high_learning_rate": high_learning_rate,
}
