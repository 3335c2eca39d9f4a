"""The suite of an image model, on generators whose faults are known: each number names its own fault, no other."""

from dataclasses import replace

import pytest
import torch

from genai_cli.metrics.controls import void
from genai_cli.metrics.features import Extractor, accuracy, random_extractor, train_classifier
from genai_cli.metrics.images import Images, measure_images
from genai_cli.metrics.record import Metric
from tests.metrics.blobs import NUM_CLASSES, SIDE, blobs

GROUPS = ("frechet", "kid", "manifold", "modes", "agreement", "diversity", "memorisation")
COUNT = 450


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    network = train_classifier(*blobs(600, seed=0), NUM_CLASSES, examples_seen=6000)
    return Extractor("classifier", network, accuracy(network, *blobs(300, seed=1)))


@pytest.fixture(scope="module")
def images() -> Images:
    """A perfect conditional generator: fresh draws."""
    (train, train_labels), (real, real_labels), (control, control_labels), (fake, asked) = (
        blobs(COUNT, seed=seed) for seed in (10, 11, 12, 13)
    )
    return Images(fake, real, control, train, asked, real_labels, control_labels, train_labels, NUM_CLASSES)


def measured(images: Images, extractor: Extractor, groups: tuple[str, ...] = GROUPS) -> dict[str, Metric]:
    classifier = extractor if extractor.name == "classifier" else None
    found = list(measure_images(images, extractor, groups, {"split": "test"}, classifier=classifier, seed=0))
    metrics, _ = void(found)
    return {metric.name: metric for metric in metrics}


@pytest.fixture(scope="module")
def perfect(images, extractor) -> dict[str, Metric]:
    return measured(images, extractor)


def test_a_perfect_generator_scores_as_real_data_do(perfect):
    assert all(metric.believed for metric in perfect.values()), [m.why_not for m in perfect.values()]
    assert perfect["frechet"].value < 0.1 * perfect["frechet"].controls["one_mode_removed"]
    assert perfect["precision"].value > 0.9 and perfect["recall"].value > 0.9
    assert perfect["agreement"].value > 0.97 and perfect["modes"].value == NUM_CLASSES
    assert perfect["memorisation"].interval[0] < 0.5 < perfect["memorisation"].interval[1]
    assert perfect["memorisation"].controls["train"] == 1
    assert perfect["intra_class_ms_ssim"].value == pytest.approx(
        perfect["intra_class_ms_ssim"].controls["real"], abs=0.03
    )


def test_every_number_has_its_interval_protocol_and_controls(perfect):
    for name, metric in perfect.items():
        assert metric.protocol["id"].startswith(name.split("_")[0]) or "ms_ssim" in name
        assert metric.protocol["n_fake"] == COUNT and metric.protocol["split"] == "test" and metric.controls
        if metric.interval is not None:
            assert metric.interval[0] <= metric.value <= metric.interval[1]
    assert len(perfect["frechet"].protocol["extractor_sha256"]) == 64


def test_a_lost_mode_shows_in_recall_coverage_and_modes(images, extractor, perfect):
    keep = images.asked != 1
    lost = measured(replace(images, fake=images.fake[keep], asked=images.asked[keep]), extractor)
    assert lost["modes"].value == NUM_CLASSES - 1 and lost["mode_divergence"].value > 0.3
    assert lost["recall"].value < 0.8 < lost["precision"].value
    assert lost["frechet"].value > 10 * perfect["frechet"].value
    assert lost["agreement"].value > 0.97


def test_known_shares_of_classes_stand_in_place_of_counted_ones(images, extractor, perfect):
    """Of the classes 0 to 2 as the data have them, nothing is far; were class 0 rare, its samples would be."""
    shares = torch.full((NUM_CLASSES,), 1 / (NUM_CLASSES - 0.9))
    shares[0] *= 0.1
    known = measured(replace(images, class_shares=shares), extractor, ("modes",))
    found, floor = known["mode_divergence"].value, known["mode_divergence"].controls["floor"]
    assert found > 0.2 > 10 * floor and perfect["mode_divergence"].value < 0.05


def test_copies_show_in_memorisation_alone(images, extractor):
    copies = measured(replace(images, fake=images.train), extractor)
    assert copies["memorisation"].value == 1 and copies["memorisation_ratio"].value < 0.01
    assert copies["recall"].value > 0.9


def test_wrong_labels_show_in_agreement_alone(images, extractor, perfect):
    wrong = measured(replace(images, asked=images.asked.roll(1)), extractor)
    assert wrong["agreement"].value < 0.05
    assert wrong["frechet"].value == perfect["frechet"].value


def test_one_image_shows_in_similarity_and_recall(images, extractor):
    one = measured(replace(images, fake=images.fake[:1].expand_as(images.fake)), extractor)
    assert one["intra_class_ms_ssim"].value == pytest.approx(1)
    assert one["recall"].value == 0 and one["modes"].value == 1


def test_noise_is_the_ceiling(images, extractor, perfect):
    noise = torch.rand(images.fake.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = measured(replace(images, fake=noise), extractor, ("frechet", "manifold"))
    assert found["frechet"].value == pytest.approx(perfect["frechet"].controls["noise"], rel=0.2)
    assert found["precision"].value < 0.05


def test_classifier_accuracy_score_has_both_of_its_controls(images, monkeypatch):
    monkeypatch.setattr("genai_cli.metrics.images.SCORE_EXAMPLES", 4000)
    groups = ("classifier_accuracy_score",)
    (score,) = measure_images(images, random_extractor((1, SIDE, SIDE)), groups, {}, classifier=None, seed=0)
    assert score.value > 0.95 and score.controls["real"] > 0.95 and score.controls["shuffled_labels"] < 0.6
    assert "too few" in score.why_not


def test_data_without_labels_are_compared_by_the_random_network(images):
    bare = replace(images, asked=None, real_labels=None, control_labels=None, train_labels=None)
    found = measured(bare, random_extractor((1, SIDE, SIDE)))
    assert {"frechet", "kid", "precision", "recall", "memorisation", "ms_ssim"} <= found.keys()
    assert not {"modes", "agreement", "intra_class_ms_ssim"} & found.keys()
    assert found["frechet"].protocol["extractor"] == "random" and found["frechet"].believed


def test_too_few_samples_are_flagged(images, extractor):
    few = measured(replace(images, fake=images.fake[:30], asked=images.asked[:30]), extractor, ("frechet", "manifold"))
    assert "too few" in few["frechet"].why_not and "too few" in few["precision"].why_not


def test_a_metric_that_cannot_tell_noise_from_data_voids_the_report(images):
    metric = Metric("frechet", 1.0, None, "", "lower", controls={"real": 3.0, "noise": 2.0, "one_mode_removed": 4.0})
    (judged,), sentences = void([metric])
    assert not judged.believed and sentences == ["frechet: noise (2) is not told from held-out data (3)"]
    assert void([replace(metric, controls={"real": 1.0, "noise": 2.0, "one_mode_removed": 1.5})])[1] == []


def test_a_poor_classifier_is_not_taken_at_its_word(images, extractor):
    found = measured(images, replace(extractor, accuracy=0.6), ("modes", "agreement"))
    assert "right on only 60.0 %" in found["modes"].why_not and "60.0 %" in found["agreement"].why_not
