"""Facts about guidance: what a solver is given is the right mixture of the network's answers."""

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import Spec
from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.random import BatchRandom
from genai_cli.samplers.guidance import conditioned

SIZES = {"width": 8, "levels": 1, "depth": 1, "heads": 2, "patch": 2, "dropout": 0.0, "backbone": None}
IMAGE = Spec("image", (1, 4, 4), (-1.0, 1.0), classes=("a", "b", "c"))


def network(condition: str | None = "label", label_dropout: float = 0.1) -> Denoiser:
    return Denoiser(IMAGE, condition=condition, label_dropout=label_dropout, **SIZES)


class Asked:
    """A denoiser whose answer is the class it was told (3 is none), and which remembers how it was asked."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, sigma: float, label: Tensor | None) -> Tensor:
        self.rows.append(len(x))
        return label.float()[:, None] + 0 * x


def answers(sigma: float, value_range: tuple[float, float] | None = None, **options) -> tuple[list[float], list[int]]:
    asked = Asked()
    denoise = conditioned(asked, network(), BatchRandom(0, stop=4), value_range=value_range, **options)
    return denoise(torch.zeros(4, 1), sigma).squeeze(1).tolist(), asked.rows


def test_without_guidance_the_class_is_told_in_one_pass():
    assert answers(1.0) == ([0, 1, 2, 0], [4])
    assert answers(1.0, guidance=1.0, label=2) == ([2, 2, 2, 2], [4])


def test_guidance_extrapolates_from_none_through_the_class():
    assert answers(1.0, guidance=2.0, label=1) == ([-1, -1, -1, -1], [8])  # 3 + 2 (1 - 3)
    assert answers(1.0, guidance=0.0, label=1) == ([3, 3, 3, 3], [8])


def test_guidance_acts_within_its_interval_alone():
    options = {"guidance": 2.0, "label": 1, "guidance_interval": (0.5, 2.0)}
    assert answers(0.5, **options) == ([1, 1, 1, 1], [4])
    assert answers(2.0, **options) == ([-1, -1, -1, -1], [8])
    assert answers(2.1, **options) == ([1, 1, 1, 1], [4])


def test_what_is_guided_is_kept_within_the_range():
    found, _ = answers(1.0, value_range=(-1.0, 1.0), guidance=3.0, label=0)
    assert found == [-1, -1, -1, -1]


def test_options_without_what_they_need_are_refused():
    def options(denoiser: Denoiser, **given) -> None:
        conditioned(Asked(), denoiser, BatchRandom(0, stop=2), value_range=None, **given)

    with pytest.raises(ValueError, match=r"guidance=2\.0 needs a model that was trained with model\.condition=label"):
        options(network(None), guidance=2.0)
    with pytest.raises(ValueError, match=r"label=1 needs a model that was trained with model\.condition=label"):
        options(network(None), label=1)
    with pytest.raises(ValueError, match=r"guidance=2\.0 needs a model .* model\.label_dropout above 0"):
        options(network(label_dropout=0.0), guidance=2.0)
    with pytest.raises(ValueError, match=r"guidance_interval=.* give guidance as well"):
        options(network(), guidance_interval=(0.1, 2.0))
