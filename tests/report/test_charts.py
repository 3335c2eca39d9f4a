"""Axes hold their values, curves keep their ends, and nothing a log can hold breaks a chart."""

import math
import random
import re
from xml.etree import ElementTree

import pytest

from genai_cli.report.charts import HEIGHT, LEFT, WIDTH, Axis, Mark, _thin, fitted, line_chart, scatter_chart, short


def test_an_axis_maps_its_ends_to_pixels():
    assert (Axis(0, 10, 100, 200)(0), Axis(0, 10, 100, 200)(5)) == (100, 150)
    assert Axis(1, 100, 0, 100, is_log=True)(10) == 50


def test_a_logarithmic_axis_is_taken_where_values_span_much():
    assert fitted([1, 1000], 0, 1, is_log=None).is_log
    assert not fitted([1, 10], 0, 1, is_log=None).is_log and not fitted([-1, 1000], 0, 1, is_log=None).is_log


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1e-12, 1e-12], [1e250, -1e250], [1e-30, 1e30]])
def test_any_values_make_a_chart(values):
    svg = line_chart("loss", {"a": list(enumerate(values))})
    assert "nan" not in svg and "inf" not in svg


def test_thinning_keeps_the_ends():
    curve = [(step, math.sin(step)) for step in range(1001)]
    thinned = _thin(curve)
    assert len(thinned) < 350 and thinned[0] == curve[0] and thinned[-1] == curve[-1]


def test_marks_stay_inside_and_the_front_is_filled():
    svg = scatter_chart("t", "x", "y", [Mark("gan", 1, 2, (1, 3), True), Mark("<vae>", 900, 5)])
    assert svg.count("<circle") == 2 and svg.count('fill="white"') == 1 and "&lt;vae&gt;" in svg
    places = [float(part.split('"')[0]) for part in svg.split('cx="')[1:]]
    assert all(LEFT <= place <= WIDTH for place in places)


def test_short_numbers():
    assert [short(value) for value in (12000, 0.5, 2_500_000, -3000)] == ["12k", "0.5", "2.5M", "-3k"]


@pytest.mark.parametrize(("length", "rows"), [(10, 3), (40, 5)])
def test_names_of_many_curves_are_below_the_chart_and_apart(length, rows):
    names = [f"{i}".ljust(length, "n") for i in range(5)]
    svg = scatter_chart("t", "x", "y", [Mark(name, x, x + i) for i, name in enumerate(names) for x in (1, 2)])
    root = ElementTree.fromstring(svg[svg.index("<svg") : svg.index("</svg>") + 6])
    height = float(root.attrib["viewBox"].split()[3])
    places = {node.text: (float(node.attrib["x"]), float(node.attrib["y"])) for node in root if node.text in names}
    assert set(places) == set(names) and len({y for _, y in places.values()}) == rows
    assert all(HEIGHT < y < height for _, y in places.values())
    for name, (x, y) in places.items():
        assert not any(x <= left < x + 6 * length and y == top for key, (left, top) in places.items() if key != name)
        assert length == 40 or x + 6 * length <= WIDTH


def boxes(svg: str, names: list[str]) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right, bottom of each name that is written in a chart."""
    root = ElementTree.fromstring(svg[svg.index("<svg") : svg.index("</svg>") + 6])
    found = {}
    for node in root:
        if node.text in names:
            x, y, width = float(node.attrib["x"]), float(node.attrib["y"]), 6 * len(node.text)
            left = x - width if node.attrib.get("text-anchor") == "end" else x
            found[node.text] = (left, y - 9, left + width, y + 2)
    return found


def test_names_of_two_curves_that_end_together_are_not_over_the_lines():
    marks = [Mark(name, x, y) for name, ys in {"ddim": (40, 12, 5.6), "heun": (30, 9, 5.7)}.items()
             for x, y in zip((5, 10, 50), ys, strict=True)]  # fmt: skip
    for some in (marks, [*marks, Mark("vae", 7, 20, (18, 22))], marks[:3]):
        names = list(dict.fromkeys(mark.name for mark in some))
        found = boxes(scatter_chart("t", "x", "y", some), names)
        assert set(found) == set(names) and all(top > HEIGHT for _, top, _, _ in found.values())


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("spread", [0.0, 0.3, 10.0])
def test_names_of_points_are_over_no_point_and_no_other_name(count, spread):
    chance = random.Random(count)
    names = [f"model number {i}" for i in range(count)]
    marks = []
    for name in names:
        x, y = 50 + spread * chance.random(), 10 + spread * chance.random()
        marks.append(Mark(name, x, y, (y - 0.5, y + 0.5)))
    marks += [Mark("left", 0, 0), Mark("right", 100, 20)]
    svg = scatter_chart("t", "x", "y", marks, level=19)
    written = boxes(svg, [*names, "left", "right"])
    assert len(written) == count + 2
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
    points = [(float(x) - 6, float(y) - 6, float(x) + 6, float(y) + 6) for x, y in circles]
    for name, box in written.items():
        others = [*points, *(other for key, other in written.items() if key != name)]
        assert not any(
            box[0] < right and left < box[2] and box[1] < bottom and top < box[3] for left, top, right, bottom in others
        )
