"""`genai sample given=FOLDER keep=...`: the images of a folder as a model takes them, and which part of them stays."""

import pytest
import torch

from genai_cli.commands.sampling import read_given
from genai_cli.data.base import Spec
from genai_cli.errors import ConfigError
from genai_cli.media.files import write_samples
from genai_cli.nn.random import SampleRandom
from genai_cli.samplers.keep import given_rows, kept_pixels

SPEC = Spec("image", (1, 6, 6), value_range=(-1.0, 1.0))


def test_a_folder_of_samples_reads_back_as_what_was_sampled(tmp_path):
    images = torch.randint(0, 256, (3, 1, 6, 6)).float() / 127.5 - 1
    write_samples(images, SPEC, tmp_path)
    torch.testing.assert_close(read_given(tmp_path, SPEC), images, atol=1e-6, rtol=0)
    assert read_given(tmp_path, Spec("image", (3, 12, 12), value_range=(0.0, 1.0))).shape == (3, 3, 12, 12)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        read_given(tmp_path / "none", SPEC)
    with pytest.raises(ConfigError, match="holds no image"):
        read_given(tmp_path, SPEC)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"broken\.png cannot be read"):
        read_given(tmp_path, SPEC)
    with pytest.raises(ConfigError, match="nothing to complete in points"):
        read_given(tmp_path, Spec("points", (2,)))


def test_a_sample_begins_with_the_given_image_of_its_number():
    given = torch.arange(3.0).view(3, 1, 1, 1)
    assert given_rows(given, SampleRandom(0, range(2, 6))).flatten().tolist() == [2, 0, 1, 2]


def test_kept_halves_are_halves():
    for keep, other in (("top_half", "bottom_half"), ("left_half", "right_half")):
        assert torch.equal(kept_pixels(keep, 5, 6), ~kept_pixels(other, 5, 6))
    assert kept_pixels("top_half", 4, 4)[:2].all() and kept_pixels("left_half", 4, 4)[:, :2].all()
    assert (~kept_pixels("border", 8, 8)).sum() == 16
    with pytest.raises(ValueError, match="keep=inside is none of top_half"):
        kept_pixels("inside", 4, 4)
