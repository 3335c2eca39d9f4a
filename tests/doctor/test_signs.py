"""Signs are 1 for held-out data, and what they should be where samples are copies, one thing or half the kinds."""

import math

import torch

from genai_cli.doctor.signs import Reference, code_signs, effective_number, nearest_of, passage_hashes, sample_signs
from tests.doctor.patients import POINTS, SPEC, TEXT, digits, eight_points, letters

TRAIN, HELD_OUT = digits(600), digits(600, split="validation")
REFERENCE = Reference.of(TRAIN, HELD_OUT, SPEC)


def images(split, places) -> torch.Tensor:
    return split.fetch(torch.as_tensor(places))["image"]


def test_held_out_data_are_like_data():
    signs = sample_signs(images(HELD_OUT, range(300, 500)), REFERENCE, SPEC)
    assert 0.9 < signs["samples/spread"] < 1.1 and 0.85 < signs["samples/modes"] < 1.15
    assert 0.85 < signs["samples/classes"] < 1.15 and abs(signs["samples/copied"]) < 0.05


def test_copies_of_training_data_are_known():
    signs = sample_signs(images(TRAIN, range(100, 300)), REFERENCE, SPEC)
    assert signs["samples/closer_to_training"] == 1 and signs["samples/copied"] > 0.95


def test_new_data_are_no_closer_to_training_data():
    signs = sample_signs(images(digits(1200), range(800, 1000)), REFERENCE, SPEC)
    assert 0.35 < signs["samples/closer_to_training"] < 0.65


def test_samples_of_one_training_example_count_once_and_a_tie_by_half():
    """Nine copies of one example and one sample half way: (1 + 1/2) / 2, not (9 + 1/2) / 10."""
    reference = Reference(torch.tensor([[0.0, 0.0], [10.0, 0.0]]), torch.tensor([[1.0, 0.0], [20.0, 0.0]]), None)
    signs = sample_signs(torch.tensor([[0.0, 0.0]] * 9 + [[15.0, 0.0]]), reference, POINTS)
    assert signs["samples/closer_to_training"] == 0.75 and signs["samples/distinct_nearest"] == 2


def test_a_copy_is_three_times_nearer_than_held_out_data():
    """These are 3 from training data: of samples at 0.9 and at 2 the former are copies."""
    reference = Reference(torch.tensor([[0.0, 0.0], [99.0, 0.0]]), torch.tensor([[0.0, 3.0], [99.0, 3.0]]), None)
    signs = sample_signs(torch.tensor([[0.0, 0.9], [99.0, -2.0]] * 5), reference, POINTS)
    assert signs["samples/copied"] == 0.5


def test_one_digit_has_one_class():
    rows = HELD_OUT.fetch(torch.arange(600))
    signs = sample_signs(rows["image"][rows["label"] == 1], REFERENCE, SPEC)
    assert signs["samples/classes"] < 0.2 < signs["samples/modes"]


def test_one_image_has_no_spread():
    signs = sample_signs(images(HELD_OUT, [5] * 50), REFERENCE, SPEC)
    assert signs["samples/spread"] == 0 and signs["samples/distinct_nearest"] == 1


def test_one_mode_of_eight_has_few_of_the_neighbours():
    points = eight_points(2000, 0).tensors["points"]
    reference = Reference.of(eight_points(2000, 1), eight_points(2000, 2), POINTS)
    one = points[points[:, 0] > 1.7][:256]
    assert sample_signs(one, reference, POINTS)["samples/modes"] < 0.5
    assert sample_signs(points[:256], reference, POINTS)["samples/modes"] > 0.9


def test_a_text_that_repeats_itself_has_little_spread():
    reference = Reference.of(letters(300, 0), letters(300, 1), TEXT)
    tokens = letters(20, 2).tensors["tokens"][:, :16]
    assert sample_signs(tokens, reference, TEXT)["samples/spread"] > 0.7
    assert sample_signs(torch.full((20, 16), 3), reference, TEXT)["samples/spread"] < 0.1


def test_copied_passages_are_known():
    train = letters(300, 0)
    reference = Reference.of(train, letters(300, 1), TEXT)
    assert sample_signs(train.tensors["tokens"][:20, :16], reference, TEXT)["samples/copied"] > 0.8
    assert sample_signs(letters(20, 5).tensors["tokens"][:, :16], reference, TEXT)["samples/copied"] < 0.1


def test_equal_passages_have_equal_hashes_and_others_do_not():
    tokens = torch.tensor([[1, 2, 3, 1, 2], [2, 1, 3, 1, 2]])
    hashes = passage_hashes(tokens, 2).view(2, 4)
    assert hashes[0, 0] == hashes[0, 3] == hashes[1, 3] and len(hashes.unique()) == 5


def test_the_nearest_is_found_across_chunks():
    others = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    distance, place = nearest_of(others[[7, 4999]], others)
    assert place.tolist() == [7, 4999] and distance.max() < 1e-2


def test_the_effective_number_of_equal_shares_is_their_number():
    assert math.isclose(effective_number(torch.tensor([0, 1, 2, 3] * 5)), 4)


def test_information_of_codes_far_apart_is_the_log_of_their_number():
    mean = 100 * torch.arange(64.0)[:, None].expand(64, 3)
    signs = code_signs(mean, torch.zeros(64, 3))
    assert signs["codes/active_units"] == 3 and math.isclose(signs["codes/mutual_information"], math.log(64))


def test_codes_like_the_prior_hold_nothing():
    signs = code_signs(torch.zeros(64, 3), torch.zeros(64, 3))
    assert signs["codes/active_units"] == 0 and signs["codes/mutual_information"] < 1e-6


def test_nothing_is_said_of_the_code_of_one_example():
    """As of a folder of twenty images, one of them for validation."""
    assert code_signs(torch.ones(1, 3), torch.zeros(1, 3)) == {}


def test_information_of_a_gaussian_channel():
    """x ~ N(0, s^2), q(z | x) = N(x, 1): I = log(1 + s^2) / 2."""
    x = 3 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(1))
    assert abs(code_signs(x, torch.zeros(4000, 1))["codes/mutual_information"] - math.log(10) / 2) < 0.05


def test_large_images_are_compared_small():
    from genai_cli.data.pixels import image_spec
    from genai_cli.doctor.signs import as_rows

    assert as_rows(torch.zeros(2, 3, 256, 256), image_spec(3, 256, 256)).shape == (2, 3 * 32 * 32)
