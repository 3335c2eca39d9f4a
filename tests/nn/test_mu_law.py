"""The mu-law: its levels read back as themselves, and are finest where it is quiet."""

import torch

from genai_cli.nn import mu_law


def test_every_level_reads_back_as_itself():
    levels = torch.arange(mu_law.NUM_LEVELS)
    assert torch.equal(mu_law.encode(mu_law.decode(levels)), levels)


def test_the_ends_of_the_range_are_the_ends_of_the_levels():
    decoded = mu_law.decode(torch.tensor([0, 255]))
    assert decoded.tolist() == [-1.0, 1.0]
    assert mu_law.encode(torch.tensor([-1.5, -1.0, 1.0, 2.0])).tolist() == [0, 0, 255, 255]


def test_quiet_sounds_are_told_sixty_times_as_finely_as_loud_ones():
    decoded = mu_law.decode(torch.arange(mu_law.NUM_LEVELS))
    steps = decoded.diff()
    assert (steps > 0).all() and steps.max() / steps.min() > 60
    x = torch.linspace(-1, 1, 20_001)
    assert (mu_law.decode(mu_law.encode(x)) - x).abs().max() <= 0.51 * steps.max()
