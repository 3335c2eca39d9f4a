"""Several runs side by side: one table with intervals, and quality against time, size and speed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from genai_cli.report.charts import COLOURS, Mark, scatter_chart, short
from genai_cli.report.html import Markup, element, join, table
from genai_cli.report.page import Section, no, page


@dataclass(frozen=True)
class Contestant:
    """One run and what was measured of it."""

    name: str
    folder: str
    step: int
    seconds: float | None  # of training, without start and evaluation
    parameters: int
    sampling_seconds: float | None  # for each sample, in batches of 64
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # as in an evaluation's record, by name
    problem: str = ""  # why something is missing
    note: str = ""
    run: str = ""  # the name without the options of samples
    sampling: Mapping[str, Any] = field(default_factory=dict)  # these options, where several ways are compared

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def value(self, metric: str) -> float | None:
        value = self.metrics.get(metric, {}).get("value")
        return value if isinstance(value, int | float) else None


OF_RUNS = ("training time (s)", "parameters")  # costs that do not depend on how samples are drawn
COSTS: dict[str, Callable[[Contestant], float | None]] = {
    "training time (s)": lambda contestant: contestant.seconds,
    "parameters": lambda contestant: contestant.parameters,
    "time a sample (ms)": lambda contestant: _milliseconds(contestant.sampling_seconds),
}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def common_metrics(contestants: Sequence[Contestant]) -> list[str]:
    """Metrics that more than one has, those of all first."""
    names = dict.fromkeys(name for contestant in contestants for name in contestant.metrics)
    counts = {name: sum(name in contestant.metrics for contestant in contestants) for name in names}
    least = min(2, len(contestants))
    return sorted((name for name in names if counts[name] >= least), key=lambda name: -counts[name])


def choose_metric(contestants: Sequence[Contestant]) -> str | None:
    """What the charts show: a Frechet distance or KID where all have one, else the first that has a better side."""
    found = [name for name in common_metrics(contestants) if _better(contestants, name) in ("lower", "higher")]
    complete = [name for name in found if all(contestant.value(name) is not None for contestant in contestants)]
    preferred = [name for word in ("fid", "frechet", "kid") for name in complete if name.startswith(word)]
    return next(iter([*preferred, *complete, *found]), None)


def _better(contestants: Sequence[Contestant], metric: str) -> str:
    return next(str(each.metrics[metric].get("better")) for each in contestants if metric in each.metrics)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of (cost, loss) pairs, which are not beaten: no other one is as low in both and lower in one."""
    return [
        not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
        for point in points
    ]


def charts(contestants: Sequence[Contestant], metric: str) -> dict[str, Markup]:
    """For each cost a chart of the metric against it, where two or more have both; the Pareto front is filled.

    First, where runs were sampled in several ways, the metric against each option that is a number: all runs in one
    chart if their curves can be told apart by colour, else a chart for each run.
    """
    numbers, drawn = _numbers(contestants), {}
    for label, cost in {**numbers, **COSTS}.items():
        names = dict.fromkeys(_curve(each, label) for each in contestants)
        if label in numbers and len(names) > len(COLOURS):
            for run in dict.fromkeys(each.run for each in contestants):
                of_run = [each for each in contestants if each.run == run]
                drawn |= _chart(of_run, metric, label, cost, of_run=f" of {run}")
        else:
            drawn |= _chart(contestants, metric, label, cost)
    return drawn


def _chart(
    contestants: Sequence[Contestant], metric: str, label: str, cost: Callable[[Contestant], float | None],
    *, of_run: str = "",
) -> dict[str, Markup]:  # fmt: skip
    """The chart under its label, or nothing where there are not two points."""
    have = [each for each in contestants if cost(each) is not None and each.value(metric) is not None]
    better = _better(contestants, metric)
    if label in OF_RUNS:
        have = _best_of_each_run(have, metric, better)
    if len(have) < 2:
        return {}
    front = pareto_front([(cost(each), _loss(each, metric, better)) for each in have])
    marks = [
        Mark(_curve(each, label), cost(each), each.value(metric), _interval(each.metrics[metric]), is_best)
        for each, is_best in zip(have, front, strict=True)
    ]
    level = floor(have, metric)
    chart = scatter_chart(f"{metric} against {label}{of_run}", label, f"{better} is better", marks, level=level)
    return {f"{label}{of_run}": chart}


def floor(contestants: Sequence[Contestant], metric: str) -> float | None:
    """What as many real examples score, where it was measured and is the same for all."""
    values = {(each.metrics[metric].get("controls") or {}).get("real") for each in contestants}
    return values.pop() if len(values) == 1 else None


def grid(contestants: Sequence[Contestant], metric: str) -> tuple[list[str], list[list[str]]] | None:
    """Header and rows of the metric by the first option of samples that is a number; None where none differs.

    A row for each way of sampling a run but for that number, a column for each of its values.
    """
    label = next(iter(_numbers(contestants)), None)
    if label is None:
        return None
    cells: dict[str, dict[float, str]] = {}
    for each in contestants:
        if label in each.sampling and metric in each.metrics:
            cells.setdefault(_curve(each, label), {})[each.sampling[label]] = _cell(each.metrics[metric])
    values = sorted({value for row in cells.values() for value in row})
    header = [f"{metric} by {label}", *map(str, values)]
    return header, [[name, *(row.get(value, "") for value in values)] for name, row in cells.items()]


def _numbers(contestants: Sequence[Contestant]) -> dict[str, Callable[[Contestant], float | None]]:
    """The options of samples that are numbers and differ."""
    values: dict[str, set[float]] = {}
    for each in contestants:
        for key, value in each.sampling.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(key, set()).add(value)
    return {key: lambda each, key=key: each.sampling.get(key) for key, found in values.items() if len(found) > 1}


def _curve(contestant: Contestant, label: str) -> str:
    """What is joined in a chart against `label`: the same run, sampled in the same way but for one number."""
    if not contestant.sampling or label in OF_RUNS:
        return contestant.name
    numbers = [key for key, value in contestant.sampling.items() if type(value) in (int, float)]
    left_out = label if label in contestant.sampling else next(iter(numbers), None)
    return named(contestant.run, {key: value for key, value in contestant.sampling.items() if key != left_out})


def named(run: str, sampling: Mapping[str, Any]) -> str:
    """A run and how it was sampled, in words."""
    return " ".join([run, *(f"{key}={value}" for key, value in sampling.items())])


def _loss(contestant: Contestant, metric: str, better: str) -> float:
    return contestant.value(metric) * (-1.0 if better == "higher" else 1.0)


def _best_of_each_run(contestants: Sequence[Contestant], metric: str, better: str) -> list[Contestant]:
    best: dict[str, Contestant] = {}
    for each in contestants:
        other = best.get(each.folder)
        if other is None or _loss(each, metric, better) < _loss(other, metric, better):
            best[each.folder] = each
    return list(best.values())


def _interval(metric: Mapping[str, Any]) -> tuple[float, float] | None:
    interval = metric.get("interval")
    is_pair = isinstance(interval, list | tuple) and len(interval) == 2
    return (float(interval[0]), float(interval[1])) if is_pair and None not in interval else None


def rows(contestants: Sequence[Contestant]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table: costs, then every metric that more than one has."""
    names = common_metrics(contestants)
    header = ["run", "steps", *COSTS, *names, ""]
    return header, [
        [
            each.name,
            f"{each.step:,}",
            *("" if cost(each) is None else short(cost(each)) for cost in COSTS.values()),
            *(_cell(each.metrics[name]) if name in each.metrics else "" for name in names),
            each.problem or each.note,
        ]
        for each in contestants
    ]


def _cell(metric: Mapping[str, Any]) -> str:
    """`3.21 [3.05, 3.37]`, with a mark where the number is not to be believed."""
    value, interval = metric.get("value"), _interval(metric)
    shown = "not finite" if value is None else f"{value:.4g}"
    if interval is not None:
        shown += f" [{interval[0]:.4g}, {interval[1]:.4g}]"
    return shown if metric.get("believed", True) else f"{shown} (?)"


def comparison_page(title: str, lead: str, contestants: Sequence[Contestant], metric: str | None) -> str:
    """The whole page."""
    drawn = charts(contestants, metric) if metric else {}
    words = "Filled: on the Pareto front, which no other one beats in both. Bars are 95 % intervals. "
    if any(each.sampling for each in contestants):
        words += "Joined: one run, sampled in the same way but for one number."
    shown = join(element("p", words, class_="note"), element("div", *drawn.values(), class_="charts"))
    doubts = [
        f"{name} of {each.name}: {entry.get('why_not')}"
        for each in contestants
        for name, entry in each.metrics.items()
        if not entry.get("believed", True)
    ]
    listed = element("ul", *(element("li", doubt) for doubt in doubts))
    by_number = grid(contestants, metric) if metric else None
    sections = [
        Section("Table", join(*(table(*each) for each in (by_number, rows(contestants)) if each is not None))),
        Section("Charts", shown if drawn else no("there is no number that two of them share")),
        Section("Not to be believed (?)", listed if doubts else no("nothing here")),
        Section("Runs", table(["run", "directory"], [[each.name, each.folder] for each in contestants])),
    ]
    return page(title, element("p", lead, class_="note"), sections)
