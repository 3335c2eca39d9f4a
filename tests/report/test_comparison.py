"""The Pareto front, the choice of the metric, and cells that tell what must not be believed."""

import io

from PIL import Image

from genai_cli.report.comparison import (
    Contestant,
    charts,
    choose_metric,
    common_metrics,
    floor,
    grid,
    named,
    pareto_front,
    rows,
)
from genai_cli.report.standalone import png_file, svg_file


def contestant(name: str, seconds: float, **values: float) -> Contestant:
    metrics = {
        key: {"value": value, "interval": [value - 1, value + 1], "better": "lower"} for key, value in values.items()
    }
    return Contestant(name, f"runs/{name}", 10, seconds, 1000, 0.001, metrics)


def test_the_front_is_what_none_beats_in_both():
    assert pareto_front([(1, 5), (2, 3), (3, 3), (4, 1), (2, 4)]) == [True, True, False, True, False]
    assert pareto_front([(1, 1), (1, 1)]) == [True, True]


def test_a_distance_of_samples_is_preferred_where_all_have_it():
    both = [contestant("a", 1, nll=1, frechet_pixels=3), contestant("b", 2, nll=2, frechet_pixels=1)]
    assert choose_metric(both) == "frechet_pixels"
    assert choose_metric([both[0], contestant("c", 2, nll=3)]) == "nll"
    assert choose_metric([contestant("c", 2)]) is None


def test_metrics_of_one_alone_are_no_column():
    assert common_metrics([contestant("a", 1, nll=1), contestant("b", 1, nll=2, kid=3)]) == ["nll"]


def test_doubtful_numbers_are_marked():
    doubtful = contestant("a", 1, nll=1)
    doubtful.metrics["nll"]["believed"] = False
    header, cells = rows([doubtful, contestant("b", 1, nll=2)])
    assert header[-2] == "nll" and [row[-2] for row in cells] == ["1 [0, 2] (?)", "2 [1, 3]"]


def test_a_chart_for_each_cost_that_two_have():
    drawn = charts([contestant("a", 1, nll=1), contestant("b", 2, nll=2)], "nll")
    assert len(drawn) == 3
    assert list(charts([contestant("a", 1, nll=1), Contestant("b", "b", 1, None, 5, None)], "nll")) == []


def sampled(run: str, value: float, **sampling) -> Contestant:
    metrics = {"frechet": {"value": value, "interval": [value - 1, value + 1], "better": "lower"}}
    name = named(run, sampling)
    return Contestant(name, f"runs/{run}", 10, 5, 100, 1e-3 * value, metrics, run=run, sampling=sampling)


def test_quality_against_steps_is_a_curve_for_each_solver():
    grid = [sampled("a", 40 / steps, steps=steps, solver=solver) for solver in ("ddim", "heun") for steps in (5, 10)]
    drawn = charts([*grid, sampled("b", 3)], "frechet")
    assert list(drawn) == ["steps", "training time (s)", "parameters", "time a sample (ms)"]
    assert drawn["steps"].count("<polyline") == 2 and drawn["steps"].count("<circle") == 4
    assert "a solver=ddim" in drawn["steps"] and "steps=" not in drawn["steps"]
    assert drawn["parameters"].count("<circle") == 2, "of each run its best"
    assert list(charts(grid, "frechet")) == ["steps", "time a sample (ms)"], "of one run there is one size"


def test_a_grid_has_a_row_for_each_solver_and_a_column_for_each_number():
    ways = [(5, "ddim"), (10, "ddim"), (10, "heun")]
    header, cells = grid([sampled("a", n, evaluations=n, solver=solver) for n, solver in ways], "frechet")
    assert header == ["frechet by evaluations", "5", "10"]
    assert cells == [["a solver=ddim", "5 [4, 6]", "10 [9, 11]"], ["a solver=heun", "", "10 [9, 11]"]]
    assert grid([sampled("a", 3, steps=5), sampled("b", 4, steps=5)], "frechet") is None, "no number differs"


def test_more_curves_than_colours_are_a_chart_for_each_run():
    solvers = ("ddpm", "ddim", "euler", "heun")
    many = [sampled(run, n, evaluations=n, solver=solver) for run in "ab" for solver in solvers for n in (5, 10)]
    drawn = charts(many, "frechet")
    assert list(drawn)[:2] == ["evaluations of a", "evaluations of b"]
    assert all(drawn[f"evaluations of {run}"].count("<polyline") == 4 for run in "ab")


def test_the_floor_is_told_where_all_have_the_same():
    def scored(name: str, real: float | None) -> Contestant:
        each = contestant(name, 1 if name == "a" else 2, frechet=5)
        each.metrics["frechet"]["controls"] = None if real is None else {"real": real}
        return each

    same = [scored("a", 0.7), scored("b", 0.7)]
    assert floor(same, "frechet") == 0.7
    assert all("stroke-dasharray" in chart for chart in charts(same, "frechet").values())
    for other in (0.8, None):
        differing = [scored("a", 0.7), scored("b", other)]
        assert floor(differing, "frechet") is None
        assert not any("stroke-dasharray" in chart for chart in charts(differing, "frechet").values())


def test_a_chart_of_a_comparison_is_a_picture_with_the_colours_of_its_marks():
    chart = charts([contestant("one", 1, nll=1), contestant("<two>", 2, nll=2)], "nll")["parameters"]
    svg = svg_file(chart, "nll & size")
    assert "&lt;two&gt;" in svg and "nll &amp; size" in svg
    picture = Image.open(io.BytesIO(png_file(svg, scale=2)))
    assert picture.size == (680, 428)
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    assert {(0x1F, 0x4E, 0x8C), (0xC4, 0x50, 0x1B), (255, 255, 255)} <= colours
