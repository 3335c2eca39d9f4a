"""Each test of the doctor on curves made by hand: one value too few, and what must not be mistaken for it."""

import dataclasses
import json

import pytest

from genai_cli.config import DoctorConfig
from genai_cli.doctor import symptoms
from genai_cli.doctor.findings import CATALOGUE, Finding
from genai_cli.doctor.symptoms import LENGTH, TESTS, Curves, Facts, Symptom
from genai_cli.doctor.watch import Watch, replay
from genai_cli.schema import judge_train

FACTS = Facts(total_steps=1000, monitor="nll", codebook_size=256)


def curves(**series: list[float]) -> Curves:
    """Curves at steps 100, 200, ...; __ in a name is a slash."""
    made = Curves()
    for name, values in series.items():
        for i, value in enumerate(values, 1):
            made.add(100 * i, {name.replace("__", "/"): value})
    return made


def test_every_test_has_its_text_and_its_policy():
    policies = {field.name for field in dataclasses.fields(DoctorConfig)} - {"patience", "rollbacks"}
    assert set(TESTS) == policies == set(CATALOGUE) - {"not_finite"}


@pytest.mark.parametrize("key", ["samples__spread", "samples__modes", "samples__classes"])
def test_mode_collapse_needs_three_in_a_row_after_the_first_fifth(key: str):
    assert symptoms.mode_collapse(curves(**{key: [1, 1, 0.01, 0.01, 0.01]}), FACTS).since == 300
    assert symptoms.mode_collapse(curves(**{key: [1, 1, 1, 0.01, 0.01]}), FACTS) is None
    assert symptoms.mode_collapse(curves(**{key: [0.01, 0.01, 0.01]}), FACTS) is None, "it has hardly begun"


def test_the_overpowering_player_is_told_from_equilibrium():
    won = curves(d__real_probability=[0.99] * 3, d__fake_probability=[0.01] * 3)
    assert symptoms.discriminator_wins(won, FACTS).since == 100 and symptoms.generator_wins(won, FACTS) is None
    lost = curves(d__real_probability=[0.3] * 3, d__fake_probability=[0.6] * 3)
    assert symptoms.generator_wins(lost, FACTS) and symptoms.discriminator_wins(lost, FACTS) is None
    even = curves(d__real_probability=[0.5] * 3, d__fake_probability=[0.5] * 3)
    assert symptoms.generator_wins(even, FACTS) is None and symptoms.discriminator_wins(even, FACTS) is None


def test_a_little_more_for_fakes_is_no_win():
    close = curves(d__real_probability=[0.5] * 3, d__fake_probability=[0.58] * 3)
    assert symptoms.generator_wins(close, FACTS) is None


def test_validation_is_no_player():
    even = curves(validation__real_probability=[0.1] * 3, validation__fake_probability=[0.9] * 3)
    assert symptoms.generator_wins(even, FACTS) is None


def test_a_group_whose_schedule_is_over_is_not_frozen():
    norms = [2.0, 1.5, 1.5, 1.5, 1.5]
    assert symptoms.frozen_player(curves(g__weight_norm=norms, g__learning_rate=[1e-3] * 5), FACTS).since == 200
    assert symptoms.frozen_player(curves(g__weight_norm=norms, g__learning_rate=[1, 1, 1, 1, 1e-3]), FACTS) is None
    assert symptoms.frozen_player(curves(g__weight_norm=[1.5, 1.5, 1.5 + 1e-15, 1.5]), FACTS) is None


def test_posterior_collapse_by_units_or_by_information():
    assert symptoms.posterior_collapse(curves(codes__active_units=[3, 9, 0, 0, 0]), FACTS)
    one = {"codes__active_units": [1] * 5}
    assert symptoms.posterior_collapse(curves(**one, codes__mutual_information=[1, 1, 0.01, 0.01, 0.01]), FACTS)
    assert symptoms.posterior_collapse(curves(**one, codes__mutual_information=[0.5] * 5), FACTS) is None
    assert symptoms.posterior_collapse(curves(codes__active_units=[0, 0, 0, 4]), FACTS) is None
    assert symptoms.posterior_collapse(curves(codes__active_units=[0, 0, 0]), FACTS) is None, "it has hardly begun"


def test_a_codebook_of_few_entries_in_use_is_dead():
    assert symptoms.dead_codebook(curves(model__perplexity=[9, 2, 2, 2]), FACTS)
    assert symptoms.dead_codebook(curves(model__perplexity=[90, 60, 50, 40]), FACTS) is None
    of_two_levels = curves(model__perplexity_0=[200] * 4, model__perplexity_1=[1] * 4)
    assert symptoms.dead_codebook(of_two_levels, FACTS).evidence == "the codes use 1.0 of 256 entries (perplexity_1)"
    assert symptoms.dead_codebook(curves(model__perplexity=[2, 2, 2]), FACTS) is None, "it has hardly begun"
    without = dataclasses.replace(FACTS, codebook_size=None)
    assert symptoms.dead_codebook(curves(model__perplexity=[2, 2, 2, 2]), without) is None, "of a language model"


def test_memorisation_needs_different_examples():
    closer = {"samples__closer_to_training": [1.0, 1.0, 1.0]}
    assert symptoms.memorisation(curves(**closer, samples__distinct_nearest=[8, 8, 8]), FACTS)
    assert symptoms.memorisation(curves(**closer, samples__distinct_nearest=[2, 2, 2]), FACTS) is None
    assert symptoms.memorisation(curves(samples__copied=[0.5] * 3), FACTS)
    assert symptoms.memorisation(curves(samples__closer_to_training=[0.7] * 3), FACTS) is None


def test_overfitting_is_a_rise_while_training_falls():
    held_out, trained = [9, 5, 5.5, 5.6, 5.8], [9, 5, 4, 3, 2]
    found = symptoms.overfitting(curves(validation__nll=held_out, model__nll=trained), FACTS)
    assert found.since == 200 and "rose from 5 at step 200 to 5.8" in found.evidence
    assert symptoms.overfitting(curves(validation__nll=held_out, model__nll=[9, 5, 5, 5, 6]), FACTS) is None
    noisy = [9, 5, 5.1, 5.05, 5.1]
    assert symptoms.overfitting(curves(validation__nll=noisy, model__nll=trained), FACTS) is None
    assert symptoms.overfitting(curves(validation__nll=[-1, -5, -4, -4, -4], model__nll=[-1, -5, -6, -7, -8]), FACTS)


def test_a_discriminator_that_knows_its_data_by_heart():
    seen = {"d__real_probability": [0.9] * 3, "validation__fake_probability": [0.1] * 3}
    assert symptoms.overfitting(curves(**seen, validation__real_probability=[0.2] * 3), FACTS)
    assert symptoms.overfitting(curves(**seen, validation__real_probability=[0.8] * 3), FACTS) is None


def test_gradients_that_explode_and_vanish():
    assert symptoms.exploding_gradients(curves(m__gradient_norm=[2, 3, 2, 2, 900]), FACTS).since == 500
    assert symptoms.exploding_gradients(curves(m__gradient_norm=[2, 900, 2, 2]), FACTS).since == 200, "the first epoch"
    assert symptoms.exploding_gradients(curves(m__gradient_norm=[2, 3, 2, 2, 90]), FACTS) is None
    assert symptoms.exploding_gradients(curves(m__gradient_norm=[2, 0, 0, 0, 0, 1]), FACTS) is None, "it came back"
    assert symptoms.vanishing_gradients(curves(m__gradient_norm=[2, 1e-7, 1e-7, 1e-8]), FACTS)
    assert symptoms.vanishing_gradients(curves(m__gradient_norm=[2, 1e-3, 1e-4, 1e-5]), FACTS) is None
    assert symptoms.vanishing_gradients(curves(m__gradient_norm=[0, 0, 0]), FACTS)


def test_a_rate_that_is_too_high():
    assert symptoms.high_learning_rate(curves(model__loss=[5, 4, 6, 6, 7]), FACTS)
    assert symptoms.high_learning_rate(curves(model__loss=[5, 4, 6, 4, 7]), FACTS) is None
    assert symptoms.high_learning_rate(curves(generator__loss=[1, 2, 3, 4, 5]), FACTS) is None, "a player may lose"
    warming = curves(model__loss=[1, 5, 6, 7, 8], model__nll=[9, 8, 7, 6, 5])
    assert symptoms.high_learning_rate(warming, FACTS) is None, "the weights of its terms change"
    late = Curves({"m/weight_norm": [(0, 1.0), (100, 2.0), (200, 4.0), (300, 8.0), (400, 16.0)]})
    assert symptoms.high_learning_rate(late, FACTS) is None
    grown = Curves({"m/weight_norm": [(0, 1.0), (100, 11.0)]})
    assert symptoms.high_learning_rate(grown, FACTS) == Symptom(0, "the norm of the weights of m grew from 1 to 11")


def test_curves_keep_the_first_value_and_the_newest():
    made = curves(loss=list(range(200)))
    points = made.of("loss")
    assert len(points) == LENGTH and points[0] == (100, 0.0) and points[-1] == (20000, 199.0)
    made.add(1, {"loss": float("nan"), "other": None})
    assert len(made.of("loss")) == LENGTH and made.of("other") == []


def test_what_a_watch_remembers_goes_through_json():
    watch = Watch(DoctorConfig(), FACTS)
    for i in range(1, 5):
        watch.examine(100 * i + 200, {"samples/spread": 0.01})
    other = Watch(DoctorConfig(), FACTS)
    other.load_state(json.loads(json.dumps(watch.state())))
    assert json.dumps(other.state()) == json.dumps(watch.state()) and other.standing == {"mode_collapse": 500}


def test_a_finding_is_made_once_until_it_has_gone():
    watch = Watch(DoctorConfig(), FACTS)
    values = [0.01, 0.01, 0.01, 0.01, 0.9, 0.01, 0.01, 0.01]
    made = [watch.examine(300 + i, {"samples/spread": value}) for i, value in enumerate(values)]
    assert [len(found) for found in made] == [0, 0, 1, 0, 0, 0, 0, 1]


def test_a_replay_of_the_log_finds_the_same():
    lines = [{"step": 300 + i, "samples/spread": 0.01, "time/x": None} for i in range(3)]
    assert [finding.name for finding in replay(lines, DoctorConfig(), FACTS).judge(302)] == ["mode_collapse"]


def test_a_checkpoint_from_before_the_doctor_is_a_clean_slate():
    watch = Watch(DoctorConfig(), FACTS)
    watch.load_state(None)
    assert watch.state() == {"curves": {}, "standing": {}, "rollbacks": 0}


def test_a_rollback_without_saves_is_refused_before_work():
    values = {"model": {"name": "gan"}, "dataset": {"name": "toy2d"}, "doctor": {"overfitting": "rollback"}}
    config, problems = judge_train({**values, "train": {"steps": 5, "save_every": None}})
    assert config is None
    assert problems == [
        "doctor.overfitting=rollback needs checkpoints; give train.save_every, or doctor.overfitting=stop"
    ]
    assert judge_train({**values, "train": {"steps": 5}})[1] == []


def test_a_finding_goes_through_json():
    finding = Finding("overfitting", 10, 5, "it <rose>")
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding
    with pytest.raises(ValueError, match="nothing"):
        Finding.from_json({"name": "nothing", "step": 1, "since": 1, "evidence": ""})
