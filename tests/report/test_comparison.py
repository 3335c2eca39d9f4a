"""The Pareto front, the choice of the metric, and cells that tell what must not be believed."""

from genai_cli.report.comparison import Contestant, charts, choose_metric, common_metrics, pareto_front, rows


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
