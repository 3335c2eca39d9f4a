"""The file of an evaluation: whole, readable, and honest about numbers that are not finite."""

import json

import pytest

from genai_cli.metrics.record import FORMAT, Metric, evaluation_record, read_records, same_protocol

METRIC = Metric("frechet", 1.5, (1.0, 2.0), "squared feature distance", "lower", {"n_fake": 10}, {"real": 0.1})


def test_record_reads_back(tmp_path):
    record = evaluation_record([METRIC], voided=["x"], notes=[], run="here", model="gan", split_sha256="ab")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "2026.json").write_text(json.dumps(record))
    (tmp_path / "evaluation" / "2025.json").write_text('{"figures": {}}')  # of an earlier format
    (found,) = read_records(tmp_path)
    assert found == json.loads(json.dumps(record)) and found["format"] == FORMAT
    assert found["metrics"][0] == {
        "name": "frechet", "value": 1.5, "interval": [1.0, 2.0], "unit": "squared feature distance", "better": "lower",
        "believed": True, "why_not": None, "protocol_id": METRIC.protocol_id,
        "protocol": {"n_fake": 10}, "controls": {"real": 0.1}, "standard_error": None,
    }  # fmt: skip


def test_records_of_one_second_come_in_their_order(tmp_path):
    (tmp_path / "evaluation").mkdir()
    for name in ("T08-002", "T08", "T09", "T08-010"):
        (tmp_path / "evaluation" / f"{name}.json").write_text(json.dumps({"format": FORMAT, "name": name}))
    assert [record["name"] for record in read_records(tmp_path)] == ["T08", "T08-002", "T08-010", "T09"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_null_and_not_believed(value):
    record = Metric("kid", value, (0.0, value), "", "lower").to_json()
    assert record["value"] is None and record["interval"] is None and not record["believed"]
    json.dumps(record, allow_nan=False)


def test_an_interval_or_control_that_is_not_finite_is_left_out():
    """Of two samples there is a mean, and nothing to say how it would move."""
    record = Metric("kid", 1.0, (0.0, float("nan")), "", "lower", {}, {"real": float("nan"), "noise": 3.0}).to_json()
    assert (record["value"], record["interval"], record["controls"]) == (1.0, None, {"noise": 3.0})
    assert record["why_not"] == "too few examples for an interval"
    json.dumps(record, allow_nan=False)


def test_a_standard_error_that_is_not_finite_is_left_out():
    for error, kept in ((float("nan"), None), (0.5, 0.5), (0.0, 0.0)):
        assert Metric("nll", 1.0, (0.0, 2.0), "nats", "lower", standard_error=error).to_json()["standard_error"] == kept


def test_doubts_add_up():
    assert METRIC.doubted("one").doubted("two").why_not == "one; two"


def test_values_compare_where_their_protocols_agree():
    assert same_protocol({"n_fake": 10, "sampler": 1}, {"n_fake": 10}) == []
    assert same_protocol({"n_fake": 10}, {"n_fake": 20}) == ["n_fake: 10 and 20"]
