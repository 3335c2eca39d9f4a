"""Facts about samples along a path between two noises."""

import pytest
import torch

from genai_cli.data.base import Spec
from genai_cli.engine.sampling import draw
from genai_cli.models.flow_matching import FlowMatching
from genai_cli.models.made import MADE
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.paths import PathRandom
from genai_cli.nn.random import SampleRandom

CPU = torch.device("cpu")


def test_a_path_leads_from_one_noise_to_the_other():
    noise = PathRandom(3, range(10), 5).normal(4)
    ends = SampleRandom(3, range(4)).normal(4)
    torch.testing.assert_close(noise[[0, 4, 5, 9]], ends)
    torch.testing.assert_close(noise[2], (ends[0] + ends[1]) / 2**0.5)


def test_every_stop_is_standard_normal():
    noise = PathRandom(0, range(3000), 3).normal(10)
    for stop in range(3):
        assert noise[stop::3].std().item() == pytest.approx(1, rel=0.03)


def test_a_path_has_one_class_and_one_uniform_draw():
    random = PathRandom(0, range(8), 4)
    assert sample_labels(random, 10).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert random.uniform().unique().numel() == 2 and not random.has_moved


def test_samples_of_a_path_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    model = FlowMatching(Spec("points", (2,)), **FlowMatching.tiny)
    torch.nn.init.normal_(model.network.backbone.head.weight)
    once, parts = (draw(model, 10, seed=1, batch_size=size, device=CPU, num_stops=4) for size in (10, 3))
    torch.testing.assert_close(once, parts, atol=1e-3, rtol=1e-3)
    assert not torch.equal(once, draw(model, 10, seed=1, batch_size=10, device=CPU))


def test_a_model_without_normal_noise_is_refused():
    spec = Spec("image", (1, 4, 4), (-1.0, 1.0), levels=256)
    with pytest.raises(ValueError, match=r"interpolate=4: .*no normal noise"):
        draw(MADE(spec, **MADE.tiny), 4, seed=0, batch_size=4, device=CPU, num_stops=4)
