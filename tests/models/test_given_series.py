"""Every model that completes images completes series: what is given stays, the rest is drawn, sample by sample."""

import pytest
import torch

from genai_cli.data.base import Spec
from genai_cli.models.consistency import Consistency
from genai_cli.models.ddpm import DDPM
from genai_cli.models.edm import EDM
from genai_cli.models.flow_matching import FlowMatching
from genai_cli.models.meanflow import MeanFlow
from genai_cli.nn.random import SampleRandom

SERIES = Spec("series", (8, 2), columns=("a", "b"))
MODELS = [Consistency, DDPM, EDM, FlowMatching, MeanFlow]


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def model(request):
    torch.manual_seed(0)
    return request.param(SERIES, width=8).eval()


def draw(model, indices: range, **options) -> torch.Tensor:
    return model.sample(SampleRandom(0, indices), steps=3, **options)


def test_what_is_given_stays_to_the_bit_and_the_rest_is_drawn(model):
    given = torch.randn(2, 5, 2)
    given[:, 2, 1] = torch.nan
    known = torch.nn.functional.pad(given.isfinite(), (0, 0, 0, 3))
    samples = draw(model, range(4), given=given)
    assert samples.shape == (4, 8, 2) and samples.isfinite().all()
    for i, sample in enumerate(samples):
        assert torch.equal(sample[known[i % 2]], given[i % 2][given[i % 2].isfinite()])
    assert (samples[0] != samples[2])[~known[0]].all()
    torch.testing.assert_close(draw(model, range(3, 4), given=given)[0], samples[3], atol=1e-5, rtol=1e-4)


def test_of_a_whole_series_stays_what_keep_says_and_strength_changes_all(model):
    given = torch.randn(1, 8, 2)
    stays = {"first_half": slice(0, 4), "last_half": slice(4, 8)}
    for keep, place in stays.items():
        assert torch.equal(draw(model, range(1), given=given, keep=keep)[0, place], given[0, place])
    assert torch.equal(draw(model, range(1), given=given, keep=3)[0, :3], given[0, 5:])
    assert not (draw(model, range(1), given=given, strength=0.5) == given).any()


def test_a_series_that_leaves_nothing_to_draw_is_refused(model):
    with pytest.raises(ValueError, match="fills the window of 8 steps"):
        draw(model, range(1), given=torch.zeros(1, 8, 2))
    with pytest.raises(ValueError, match="9 given steps are more than the 8"):
        draw(model, range(1), given=torch.zeros(1, 9, 2))
