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
    with pytest.raises(ValueError, match=r"guidance_interval=\[3,0.2\] holds no sigma: the lower end comes first"):
        options(network(), guidance=2.0, guidance_interval=(3.0, 0.2))


class Guide:
    """A weaker model, whose answer is -1."""

    def __init__(self, condition: str | None = None):
        self.network = network(condition)
        self.labels: list[Tensor | None] = []

    def denoise(self, x: Tensor, sigma: float, label: Tensor | None) -> Tensor:
        self.labels.append(label)
        return -1 + 0 * x


def test_autoguidance_extrapolates_from_the_guide():
    assert answers(1.0, guidance=2.0, guide=Guide()) == ([1, 3, 5, 1], [4])  # -1 + 2 (class + 1)
    unconditional = conditioned(
        lambda x, sigma, label: 4 + 0 * x, network(None), BatchRandom(0, stop=1), value_range=None, guidance=1.5,
        guide=Guide(),
    )  # fmt: skip
    assert unconditional(torch.zeros(1, 1), 1.0).item() == -1 + 1.5 * 5


def test_autoguidance_of_one_is_none_and_asks_no_guide():
    guide = Guide()
    assert answers(1.0, guidance=1.0, guide=guide) == answers(1.0)
    assert answers(5.0, guidance=3.0, guide=guide, guidance_interval=(0.5, 2.0)) == answers(5.0)
    assert guide.labels == []


def test_a_guide_that_knows_classes_is_told_them():
    guide = Guide("label")
    answers(1.0, guidance=2.0, guide=guide, label=2)
    assert guide.labels[0].tolist() == [2, 2, 2, 2]


def test_a_guide_that_does_not_fit_is_refused():
    def ask(**options) -> None:
        conditioned(Asked(), network(None), BatchRandom(0, stop=1), value_range=None, **options)

    with pytest.raises(ValueError, match="say how far, such as guidance=2"):
        ask(guide=Guide())
    with pytest.raises(ValueError, match="which does not denoise: give one of ddpm"):
        ask(guide=object(), guidance=2.0)
    with pytest.raises(ValueError, match="and this run was not"):
        ask(guide=Guide("label"), guidance=2.0)
    with pytest.raises(ValueError, match=r"label=1 needs .*model\.condition=label"):
        ask(guide=Guide(), guidance=2.0, label=1)
