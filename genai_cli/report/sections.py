"""The sections of a report, each from plain data: numbers, findings, records. None of it is trusted."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genai_cli.doctor.findings import Finding
from genai_cli.report.charts import line_chart, short
from genai_cli.report.html import Markup, details, element, join, table
from genai_cli.report.page import Section, no

MINOR = ("learning_rate", "weight_norm", "gradient_norm")  # charts that are folded away, with all of "time/" and so on


def film(frames: Sequence[tuple[int, Markup]]) -> Section:
    """The same samples at several steps of training, side by side."""
    figures = [
        element("figure", element("figcaption", f"step {step:,}"), picture, class_="frame") for step, picture in frames
    ]
    words = element("p", "The same seeds at each step: one set of samples growing up.", class_="note")
    body = join(words, element("div", *figures, class_="strip")) if frames else no("no sheets were made in training")
    return Section("History", body)


def curves(lines: Iterable[Mapping[str, Any]]) -> Section:
    """A chart for each number that was logged more than once; those of the same name share one."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        for key, value in line.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if key != "step" and is_number and abs(value) < 1e300 and not key.startswith("time/peak"):
                group, _, name = key.rpartition("/")
                title = name if group not in ("samples", "codes", "time") else key
                charts.setdefault(title, {}).setdefault(group or name, []).append((line["step"], value))
    drawn: dict[bool, list[Markup]] = {True: [], False: []}
    for title, several in charts.items():
        curves = {name: curve for name, curve in several.items() if len(curve) > 1}
        if curves:
            drawn["/" in title or title in MINOR].append(line_chart(title, curves))
    if not drawn[True] + drawn[False]:
        return Section("Curves", no("nothing was logged twice"))
    more = details("more curves", element("div", *drawn[True], class_="charts"))
    return Section("Curves", join(element("div", *drawn[False], class_="charts"), more))


def metrics(record: Mapping[str, Any] | None) -> Section:
    """The newest evaluation, each number with its interval, whether to believe it, and its protocol."""
    if record is None:
        return Section("Metrics", no("not evaluated yet: genai evaluate run=DIR, then make this report again"))
    rows, protocols = [], []
    for metric in _list(record.get("metrics")):
        name = str(metric.get("name"))
        trusted = "yes" if metric.get("believed") else f"no: {metric.get('why_not')}"
        controls = metric.get("controls") if isinstance(metric.get("controls"), dict) else {}
        shown = ", ".join(f"{key.replace('_', ' ')} {_number(value)}" for key, value in controls.items())
        value = " ".join([_number(metric.get("value")), str(metric.get("unit") or "")])
        rows.append([name, value, _interval(metric.get("interval")), str(metric.get("better")), trusted, shown])
        protocols.append(details(name, _mapping(metric.get("protocol"))))
    about = [f"{key} {record[key]}" for key in ("created", "step", "weights", "split", "seed") if record.get(key)]
    notes = [str(note) for key in ("voided", "notes") for note in record.get(key) or []]
    header = ["metric", "value", "95 % interval", "better", "to be believed", "controls"]
    body = join(
        element("p", ", ".join(map(str, about)), class_="note"),
        table(header, rows),
        element("ul", *(element("li", note) for note in notes)) if notes else Markup(""),
        details("protocols", *protocols),
    )
    return Section("Metrics", body)


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _interval(value: Any) -> str:
    return " to ".join(map(_number, value)) if isinstance(value, list | tuple) else ""


def _mapping(values: Any) -> Markup:
    flat = flatten(values) if isinstance(values, dict) else {}
    return table([], [[key, value] for key, value in flat.items()])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"a": {"b": [1]}} -> {"a.b": "[1]"}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def doctor(present: Sequence[Finding], past: Sequence[Finding], signs: Mapping[str, float]) -> Section:
    """What is found now and what was in training, then the signs in numbers."""
    if present:
        now = join(*(_finding(finding, "warning") for finding in present))
    else:
        now = element("p", "Nothing is found to be wrong.", class_="well")
    names = {finding.name for finding in present}
    before = [_finding(finding, "warning") for finding in past if finding.name not in names]
    shown = table(["sign", "value"], [[key, short(value)] for key, value in signs.items()])
    parts = [now]
    if before:
        parts.append(details(f"while it trained: {len(before)} found", *before))
    if signs:
        words = element("p", "Of samples, 1 is what held-out data have (docs/DOCTOR.md).", class_="note")
        parts.append(details("signs measured", words, shown))
    return Section("Doctor", join(*parts))


def _finding(finding: Finding, kind: str) -> Markup:
    disease = finding.disease
    return element(
        "div",
        element("p", element("b", disease.title.capitalize()), f", since step {finding.since:,}: {finding.evidence}."),
        element("p", disease.meaning),
        element("p", element("b", "What to change: "), disease.remedy),
        class_=kind,
    )


def background(config: Mapping[str, Any], provenance: Mapping[str, Any] | None) -> Section:
    """What the run was told to do and on what it was done."""
    told = details("configuration", _mapping(config))
    made = details("provenance", _mapping(provenance)) if provenance else no("there is no provenance.json")
    return Section("Configuration and provenance", join(told, made))
