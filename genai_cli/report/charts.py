"""Charts as SVG: curves over steps, and points with intervals. Drawn here, so that a page needs no library."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genai_cli.media.plots import ticks
from genai_cli.report.html import Markup, element, join

COLOURS = ("#1f4e8c", "#c4501b", "#2c7a4b", "#7b3f98", "#8a6d00", "#00707a")
WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 26  # margins
LETTER, KEY_HEIGHT = 6.0, 14  # the width of a letter at most; the height of a row of names below a chart
MOST_POINTS = 300  # of a curve

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """From values to pixels, on a linear or a logarithmic scale."""

    low: float
    high: float
    start: float  # the pixel of `low`
    stop: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        share = (self._scale(value) - self._scale(self.low)) / (self._scale(self.high) - self._scale(self.low))
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        if not self.is_log:
            return [tick for tick in ticks(self.low, self.high) if self.low <= tick <= self.high]
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1, max(1, (last - first) // 4))]

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def fitted(values: Sequence[float], start: float, stop: float, *, is_log: bool | None = False) -> Axis:
    """An axis around all of `values`; `is_log=None` takes a logarithmic one where they span more than a hundredfold."""
    low, high = min(values), max(values)
    if is_log is None:
        is_log = low > 0 and high > 100 * low
    if is_log:
        return Axis(low / 1.2, high * 1.2, start, stop, True)
    room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - room, high + room, start, stop)


def line_chart(title: str, curves: Mapping[str, Curve]) -> Markup:
    """Curves of (step, value), with a legend where there are several."""
    thinned = {name: _thin(curve) for name, curve in curves.items()}
    points = [point for curve in thinned.values() for point in curve]
    x = fitted([step for step, _ in points], LEFT, WIDTH - RIGHT)
    y = fitted([value for _, value in points], HEIGHT - BOTTOM, TOP, is_log=None)
    lines = [_line(curve, x, y, COLOURS[i % len(COLOURS)]) for i, curve in enumerate(thinned.values())]
    svg = _svg(title, join(_axes(x, y), *lines))
    return element(
        "figure", element("figcaption", title), svg, _legend(list(curves)) if len(curves) > 1 else Markup("")
    )


def _thin(curve: Curve) -> Curve:
    stride = math.ceil(len(curve) / MOST_POINTS)
    return [*curve[:-1:stride], curve[-1]]


def _line(curve: Curve, x: Axis, y: Axis, colour: str) -> Markup:
    if len(curve) == 1:
        return element("circle", cx=x(curve[0][0]), cy=y(curve[0][1]), r=3, fill=colour)
    points = " ".join(f"{x(step)},{y(value)}" for step, value in curve)
    return element("polyline", points=points, fill="none", stroke=colour, stroke_width=1.5)


def _legend(names: list[str]) -> Markup:
    keys = [element("span", "■ ", name, style=f"color:{COLOURS[i % len(COLOURS)]}") for i, name in enumerate(names)]
    return element("p", *keys, class_="legend")


def _svg(title: str, content: Markup, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    return element(
        "svg",
        content,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
        xmlns="http://www.w3.org/2000/svg",
    )


def _axes(x: Axis, y: Axis) -> Markup:
    """Grid lines with their labels, and the two axes."""
    parts = []
    for tick in y.ticks():
        parts.append(element("line", x1=x.start, x2=x.stop, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(element("text", short(tick), x=x.start - 5, y=y(tick) + 4, text_anchor="end"))
    for tick in _sparse(x.ticks()):
        parts.append(element("line", x1=x(tick), x2=x(tick), y1=y.start, y2=y.stop, class_="grid"))
        parts.append(element("text", short(tick), x=x(tick), y=y.start + 16, text_anchor="middle"))
    return join(*parts)


def _sparse(values: list[float]) -> list[float]:
    return values[:: math.ceil(len(values) / 5)] if values else []


def short(value: float) -> str:
    """12000 as 12k, 0.5 as 0.5."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Mark:
    """One point of a scatter chart, with the interval of its height."""

    name: str  # written once for all points of one curve
    x: float
    y: float
    interval: tuple[float, float] | None = None
    is_best: bool = False  # on the Pareto front


def scatter_chart(
    title: str, x_label: str, y_label: str, marks: Sequence[Mark], *, level: float | None = None
) -> Markup:
    """Points with bars for their intervals, those of one name joined; those on the Pareto front are filled. Names stand
    beside their points, or where these are joined or too close, below the chart.

    `level` is what real data score, a dashed line.
    """
    heights = [value for mark in marks for value in (mark.y, *(mark.interval or ()))]
    x = fitted([mark.x for mark in marks], LEFT, WIDTH - RIGHT - 40, is_log=None)
    heights += [level] if level is not None else []
    is_log = max(heights) > 20 * min(heights) > 0
    y = fitted(heights, HEIGHT - BOTTOM - 14, TOP, is_log=is_log)
    curves: dict[str, list[Mark]] = {}
    for mark in sorted(marks, key=lambda mark: mark.x):
        curves.setdefault(mark.name, []).append(mark)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(mark.name for mark in marks))}
    parts = [_axes(x, y), element("text", x_label, x=(x.start + x.stop) / 2, y=HEIGHT - 4, text_anchor="middle")]
    if level is not None:
        dashed = {"stroke": "#777", "stroke_dasharray": "4 3"}
        parts.append(element("line", x1=x.start, x2=x.stop, y1=y(level), y2=y(level), **dashed))
        parts.append(element("text", "real data", x=WIDTH - 2, y=y(level) + 3, text_anchor="end", class_="name"))
    parts += [_line([(m.x, m.y) for m in curve], x, y, colours[name]) for name, curve in curves.items() if curve[1:]]
    for mark in marks:
        colour = colours[mark.name]
        if mark.interval is not None:
            low, high = mark.interval
            parts.append(element("line", x1=x(mark.x), x2=x(mark.x), y1=y(low), y2=y(high), stroke=colour))
        fill = colour if mark.is_best else "white"
        parts.append(element("circle", cx=x(mark.x), cy=y(mark.y), r=5, fill=fill, stroke=colour, stroke_width=2))
    places = {name: (x(curve[0].x), y(curve[0].y)) for name, curve in curves.items()}
    is_joined = any(curve[1:] for curve in curves.values())
    names = None if is_joined else _names(places, colours, _boxes(marks, x, y, level))
    keys = _keys(colours) if names is None else []
    parts += [join(*row) for row in keys] if names is None else names
    svg = _svg(title, join(*parts), height=HEIGHT + KEY_HEIGHT * len(keys) + 6 * bool(keys))
    return element("figure", element("figcaption", title, " (", y_label, ")"), svg)


def _keys(colours: Mapping[str, str]) -> list[list[Markup]]:
    """Rows of the names of curves in their colours, below the chart: two abreast where they fit."""
    names = list(colours)
    abreast = 2 if max(map(len, names)) <= (WIDTH - LEFT) / 2 / LETTER else 1
    rows = [names[i : i + abreast] for i in range(0, len(names), abreast)]
    return [
        [
            element(
                "text", name, x=LEFT + column * (WIDTH - LEFT) / 2, y=HEIGHT + KEY_HEIGHT * (number + 1),
                style=f"fill:{colours[name]}",
            )
            for column, name in enumerate(row)
        ]
        for number, row in enumerate(rows)
    ]  # fmt: skip


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _boxes(marks: Sequence[Mark], x: Axis, y: Axis, level: float | None) -> list[Box]:
    """What a name must not be written over: points, their intervals, and what is said of real data."""
    boxes = [(x(mark.x) - 6, y(mark.y) - 6, x(mark.x) + 6, y(mark.y) + 6) for mark in marks]
    for mark in marks:
        if mark.interval is not None:
            low, high = mark.interval
            boxes.append((x(mark.x) - 1, y(high), x(mark.x) + 1, y(low)))
    if level is not None:
        boxes.append((WIDTH - 2 - LETTER * len("real data"), y(level) - 7, WIDTH, y(level) + 6))
    return boxes


def _names(
    places: Mapping[str, tuple[float, float]], colours: Mapping[str, str], taken: Sequence[Box]
) -> list[Markup] | None:
    """Each name in its colour beside its place, higher or lower if need be; None where one finds no room.

    By a little: names that are further away go better below the chart, while there are colours to tell them by.
    """
    taken, parts = list(taken), []
    reach = 20 if len(places) <= len(COLOURS) else HEIGHT
    shifts = sorted(range(-reach, reach + 1, 4), key=abs)  # of the middle of a line of text, which is 4 above its foot
    for name, (x, y) in places.items():
        width = LETTER * len(name)
        lefts = {None: x + 9, "end": x - 9 - width}
        candidates = [(anchor, y + 4 + shift) for shift in shifts for anchor in lefts]
        for anchor, height in candidates:
            box = (lefts[anchor], height - 9, lefts[anchor] + width, height + 2)
            is_inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM - 14
            if is_inside and not any(_overlap(box, other) for other in taken):
                break
        else:
            return None
        taken.append(box)
        place = {"x": x + 9} if anchor is None else {"x": x - 9, "text_anchor": anchor}
        parts.append(element("text", name, y=height, style=f"fill:{colours[name]}", **place))
    return parts


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
