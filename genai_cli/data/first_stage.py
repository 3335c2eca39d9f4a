"""Data that a trained run makes of its own: its codes or latents, and the way back from what is drawn in their place.

The data set says which run (`dataset.run`) and which of its checkpoints; `runs.py` opens it. Spec.first_stage, and so
the directory of every run that learns from it, holds the step and the hash of the weights: samples are decoded by the
weights that made the data, or not at all.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from genai_cli.data.base import Dataset, Spec, SplitName

AT_ONCE = 500  # examples encoded together
MOST_BYTES = 250_000_000  # of one split, that are kept


class Coder(Protocol):
    """What is asked of a trained model here; see models/base.py."""

    spec: Spec
    num_codes: int

    def codes_of(self, x: Tensor) -> Tensor: ...

    def image_of(self, codes: Tensor) -> Tensor: ...

    def latents_of(self, x: Tensor) -> Tensor: ...

    def decode_latents(self, latents: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class FirstStage:
    """A trained run as a source of data: its model at one checkpoint, and what it was trained on."""

    folder: Path
    name: str  # of the model
    model: Coder
    data: Dataset
    step: int
    sha256: str  # of the weights
    device: torch.device

    def record(self) -> dict[str, Any]:
        """What tells this checkpoint from every other."""
        return {"step": self.step, "sha256": self.sha256}

    @torch.no_grad()
    def shape_of(self, encode: Callable[[Tensor], Tensor]) -> tuple[int, ...]:
        """Of what `encode` makes of one example. Raises NotImplementedError where the model cannot."""
        return tuple(encode(torch.zeros(1, *self.model.spec.shape, device=self.device)).shape[1:])

    @torch.no_grad()
    def encoded(self, kind: str, encode: Callable[[Tensor], Tensor], split: SplitName) -> dict[str, Tensor]:
        """`kind` (N, ...), what `encode` makes of a split, and `label` (N,), where there are any; on the CPU.

        Made once: kept in the run's directory under the hash of the weights, unless it is very large.
        """
        path = self.folder / "codes" / f"{kind}-{self.sha256[:16]}-{split}.safetensors"
        kept = read_kept(path, kind, self.sha256)
        if kept is not None:
            return kept
        tensors = self.encode_first(None, kind, encode, split)
        if sum(tensor.nbytes for tensor in tensors.values()) <= MOST_BYTES:
            keep(path, tensors, self.sha256)
        return tensors

    @torch.no_grad()
    def encode_first(
        self, count: int | None, kind: str, encode: Callable[[Tensor], Tensor], split: SplitName
    ) -> dict[str, Tensor]:
        """As `encoded`, of the first `count` examples (null: all), and made now."""
        examples = self.data.load(split).to(self.device)
        parts: dict[str, list[Tensor]] = {}
        for positions in torch.arange(min(count or len(examples), len(examples))).split(AT_ONCE):
            rows = examples.fetch(positions)
            codes = encode(rows[self.model.spec.key])
            parts.setdefault(kind, []).append((codes if codes.is_floating_point() else codes.to(torch.int32)).cpu())
            if "label" in rows:
                parts.setdefault("label", []).append(rows["label"].cpu())
        return {name: torch.cat(tensors) for name, tensors in parts.items()}


@dataclass(frozen=True)
class CodeDecoder:
    """From samples of a model of codes or latents to examples of the first stage's data."""

    stage: FirstStage
    coded: Spec  # what the model of them was built from

    @property
    def spec(self) -> Spec:
        return self.stage.model.spec

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Tensor:
        """(B, *coded.shape) to (B, *spec.shape). Raises ValueError where codes are not as many as an example has."""
        x = samples.to(self.stage.device)
        if self.coded.is_tokens:
            (length,) = self.coded.shape
            if x.shape[1] != length:
                raise ValueError(
                    f"an example has {length} codes, and samples have {x.shape[1]}: ask for {length} in all"
                )
            return self.stage.model.image_of(x).cpu()
        return self.stage.model.decode_latents(unscaled(x, self.coded.first_stage or {})).cpu()


def scale_of(latents: Tensor) -> dict[str, Any]:
    """Of (N, D, ...): one deviation of all numbers together, and in units of it the mean of each of D, or channel.

    Rombach et al. 2022 divide by the deviation alone (Appendix G); codes of an autoencoder without a prior need not be
    centred, so their mean is taken off, too. Rounded, so that it is the same where another machine encodes.
    """
    channels = latents.double().flatten(2) if latents.dim() > 2 else latents.double().unsqueeze(2)  # (N, D, P)
    mean = channels.mean((0, 2))
    deviation = float(f"{max((channels - mean[:, None]).square().mean().sqrt().item(), 1e-6):.4g}")
    return {"deviation": deviation, "mean": [round(value / deviation, 4) for value in mean.tolist()]}


def scaled(latents: Tensor, record: Mapping[str, Any]) -> Tensor:
    """(B, D, ...) with mean zero and, over all numbers together, variance one."""
    return latents / record["deviation"] - _mean(latents, record)


def unscaled(latents: Tensor, record: Mapping[str, Any]) -> Tensor:
    """The inverse of `scaled`."""
    return (latents + _mean(latents, record)) * record["deviation"]


def _mean(latents: Tensor, record: Mapping[str, Any]) -> Tensor:
    """(D, 1, ...)."""
    return latents.new_tensor(record["mean"]).view(-1, *(1 for _ in latents.shape[2:]))


def read_kept(path: Path, kind: str, sha256: str) -> dict[str, Tensor] | None:
    """What `keep` wrote for these weights; None where there is no such file or it is broken."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if (file.metadata() or {}).get("sha256") != sha256 or kind not in names:
                return None
            return {name: file.get_tensor(name) for name in sorted(names)}
    except (OSError, SafetensorError):
        return None


def keep(path: Path, tensors: dict[str, Tensor], sha256: str) -> None:
    """In one move, so that two processes may do it at once. A directory that cannot be written is no error."""
    from safetensors.torch import save

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"sha256": sha256}))
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
