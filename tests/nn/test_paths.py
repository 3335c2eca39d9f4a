"""Facts about samples along a path between two noises."""

import pytest
import torch
from scipy.stats import kstest, truncnorm

from genai_cli.data.base import Spec
from genai_cli.engine.sampling import draw
from genai_cli.models.flow_matching import FlowMatching
from genai_cli.models.made import MADE
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.paths import PathRandom
from genai_cli.nn.random import SampleRandom, truncate

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


@pytest.mark.parametrize("limit", [0.3, 1.0, 3.0])
def test_truncated_numbers_have_the_truncated_distribution(limit):
    uniform = torch.linspace(0.001, 0.999, 99)
    expected = torch.from_numpy(truncnorm.ppf(uniform.double().numpy(), -limit, limit)).float()
    torch.testing.assert_close(truncate(2 * uniform - 1, limit), expected, atol=1e-5, rtol=1e-4)
    assert truncate(torch.tensor([-1.0, 1 - 2**-23, 1.0]), limit).abs().max() <= limit
    random, path = SampleRandom(0, range(2000)), PathRandom(0, range(2000), 2)
    for drawn in (random.truncated_normal(limit, 5), path.truncated_normal(limit, 5)[1::2]):
        assert drawn.dtype == torch.float32 and drawn.abs().max() <= limit
        assert kstest(drawn.flatten().numpy(), truncnorm(-limit, limit).cdf).pvalue > 0.01


def test_what_is_truncated_goes_along_a_path_in_the_order_of_the_normal():
    """The map from z to the truncated number is increasing, so the path is that of the normal."""
    normal, drawn = PathRandom(1, range(40), 8).normal(3), PathRandom(1, range(40), 8).truncated_normal(0.5, 3)
    order = normal.flatten().argsort()
    assert (drawn.flatten()[order].diff() > 0).all()
    torch.testing.assert_close(PathRandom(1, range(40), 8).truncated_normal(20.0, 3), normal, atol=1e-5, rtol=1e-4)


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
