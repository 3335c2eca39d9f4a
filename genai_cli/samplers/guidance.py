"""From a conditional network to the one denoiser that a solver is given: classes, guidance, the range of the data."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genai_cli.nn.denoiser import Denoiser
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.random import RowRandom
from genai_cli.samplers.solvers import Denoise

LabelledDenoise = Callable[[Tensor, float, Tensor | None], Tensor]  # (x, sigma, label): an estimate of x_0


def conditioned(
    denoise: LabelledDenoise, network: Denoiser, random: RowRandom, *, value_range: tuple[float, float] | None,
    label: int | None = None, guidance: float | None = None, guidance_interval: tuple[float, float] | None = None,
    guide: Any = None,
) -> Denoise:  # fmt: skip
    """`denoise` for the classes of these rows (nn/labels.py), guided, kept within the range of the data.

    Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): D = D_none + guidance (D_class - D_none), where 1
    is no guidance and 0 no condition; in a `guidance_interval` of sigma alone (Kynkaanniemi et al. 2024,
    arXiv:2404.07724), if one is given. Both estimates come from one pass over twice the rows.
    With `guide`, a weaker model with `denoise` and `network` as these, its estimate takes the place of D_none:
    autoguidance (Karras et al. 2024, arXiv:2406.02507), which needs no classes.
    Raises ValueError for options that the network was not trained for.
    """
    if guide is not None:
        _check_guide(network, guide, guidance)
    _check(network, label=label, guidance=guidance, guidance_interval=guidance_interval, has_guide=guide is not None)
    labels = sample_labels(random, network.num_classes, label) if network.num_classes else None
    weight = 1.0 if guidance is None else guidance
    low, high = guidance_interval or (0.0, float("inf"))

    def guided(x: Tensor, sigma: float) -> Tensor:
        if weight == 1 or not low < sigma <= high or (labels is None and guide is None):
            return denoise(x, sigma, labels)
        if guide is not None:
            of_guide = guide.denoise(x, sigma, labels if guide.network.num_classes else None)
            return of_guide + weight * (denoise(x, sigma, labels) - of_guide)
        both = denoise(torch.cat([x, x]), sigma, torch.cat([labels, network.no_label(labels)]))
        of_class, of_none = both.chunk(2)
        return of_none + weight * (of_class - of_none)

    def within_range(x: Tensor, sigma: float) -> Tensor:
        x0 = guided(x, sigma)
        return x0 if value_range is None else x0.clamp(*value_range)

    return within_range


def _check(
    network: Denoiser, *, label: int | None, guidance: float | None, guidance_interval: tuple[float, float] | None,
    has_guide: bool,
) -> None:  # fmt: skip
    if not network.num_classes:
        needing = {"label": label} if has_guide else {"label": label, "guidance": guidance}
        for name, value in needing.items():
            if value is not None:
                raise ValueError(f"{name}={value} needs a model that was trained with model.condition=label")
    if guidance_interval is not None and guidance is None:
        raise ValueError(f"guidance_interval={guidance_interval} says where to guide: give guidance as well")
    if guidance_interval is not None and guidance_interval[0] >= guidance_interval[1]:
        low, high = guidance_interval
        raise ValueError(f"guidance_interval=[{low:g},{high:g}] holds no sigma: the lower end comes first")
    if guidance not in (None, 1.0) and network.label_dropout == 0 and not has_guide:
        raise ValueError(f"guidance={guidance} needs a model that was trained with model.label_dropout above 0")


def _check_guide(network: Denoiser, guide: Any, guidance: float | None) -> None:
    if guidance is None:
        raise ValueError("guide=DIR says by which run to guide: say how far, such as guidance=2")
    if not hasattr(guide, "denoise"):
        kind = type(guide).__name__
        raise ValueError(f"guide is a run of {kind}, which does not denoise: give one of ddpm, edm or flow_matching")
    if guide.network.num_classes and not network.num_classes:
        raise ValueError("guide was trained with model.condition=label, and this run was not: take one without")
