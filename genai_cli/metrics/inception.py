"""Inception-v3 as the customary FID takes it: 2048 features from weights that the user brings.

The network of TensorFlow's classify_image graph of 2015-12-05 (Szegedy et al. 2016, arXiv:1512.00567), whose features
Heusel et al. 2017 (arXiv:1706.08500) compare. The weights are not ours to ship; two layouts of them are read:

- the `.pth` file that pytorch-fid and torch-fidelity publish as `...inception-2015-12-05-6726825d.pth`: a state dict;
- the same tensors under the same names as `.safetensors`.

A Frechet distance is called FID only where the file is the published one, by its SHA-256. `torchvision`'s own Inception
has the same names and other weights: it is refused.

Three things differ from the paper's network and must, for the numbers to be those of others: mean pooling leaves the
padding out of the mean, the last block pools by the maximum, and images are enlarged without shifting pixel centres.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.errors import ConfigError

SIDE = 299  # pixels that images are brought to
NUM_FEATURES = 2048
PUBLISHED = "6726825d"  # what the SHA-256 of the published file begins with, as its name says
Unit = tuple[int, int | tuple[int, int]]  # output channels and kernel of a convolution
Branch = tuple[Unit | tuple[Unit, Unit], ...]  # one after the other; a pair at the end stands side by side

# The branches of each block, by the names of the published weights (Figures 5, 6, 7 and 10 of Szegedy et al.).
_A = {"branch1x1": ((64, 1),), "branch5x5": ((48, 1), (64, 5)), "branch3x3dbl": ((64, 1), (96, 3), (96, 3))}
_B = {"branch3x3": ((384, 3),), "branch3x3dbl": ((64, 1), (96, 3), (96, 3))}
_D = {"branch3x3": ((192, 1), (320, 3)), "branch7x7x3": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))}
_WIDE, _HIGH = (384, (1, 3)), (384, (3, 1))
_E = {
    "branch1x1": ((320, 1),),
    "branch3x3": ((384, 1), (_WIDE, _HIGH)),
    "branch3x3dbl": ((448, 1), (384, 3), (_WIDE, _HIGH)),
}


def _c(width: int) -> dict[str, Branch]:
    wide, high = (width, (1, 7)), (width, (7, 1))
    return {
        "branch1x1": ((192, 1),),
        "branch7x7": ((width, 1), wide, (192, (7, 1))),
        "branch7x7dbl": ((width, 1), high, wide, high, (192, (1, 7))),
    }


class Inception(nn.Module):
    """(B, C, H, W) in [-1, 1], grey or coloured, to features (B, 2048)."""

    num_features, side = NUM_FEATURES, SIDE

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2, padding=0)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, padding=0)
        self.Mixed_5b = _Mixed(192, _A, pooled=32)
        self.Mixed_5c = _Mixed(256, _A, pooled=64)
        self.Mixed_5d = _Mixed(288, _A, pooled=64)
        self.Mixed_6a = _Mixed(288, _B)
        self.Mixed_6b = _Mixed(768, _c(128), pooled=192)
        self.Mixed_6c = _Mixed(768, _c(160), pooled=192)
        self.Mixed_6d = _Mixed(768, _c(160), pooled=192)
        self.Mixed_6e = _Mixed(768, _c(192), pooled=192)
        self.Mixed_7a = _Mixed(768, _D)
        self.Mixed_7b = _Mixed(1280, _E, pooled=192)
        self.Mixed_7c = _Mixed(2048, _E, pooled=192, pools_by_maximum=True)

    def features(self, images: Tensor) -> Tensor:
        x = enlarge(to_levels(images), SIDE)
        x = (x - 128) / 128
        for name, block in self.named_children():
            x = block(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = F.max_pool2d(x, 3, stride=2)
        return x.mean((2, 3))


class _Convolution(nn.Module):
    """A convolution, normalised and rectified; padded to keep the size unless `padding` says otherwise."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, padding: int | None = None
    ):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (height // 2, width // 2) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride=stride, padding=pads, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches of convolutions side by side, and one that pools: into `pooled` channels, or (0) to half the side.

    A block that halves does so in the last convolution of each branch.
    """

    def __init__(self, inputs: int, branches: Mapping[str, Branch], *, pooled: int = 0, pools_by_maximum: bool = False):
        super().__init__()
        self.pools_by_maximum = pools_by_maximum
        self.chains = [self._add(name, inputs, branch, halves=not pooled) for name, branch in branches.items()]
        self.branch_pool = _Convolution(inputs, pooled, 1) if pooled else None

    def _add(self, name: str, channels: int, branch: Branch, *, halves: bool) -> list[tuple[str, ...]]:
        """The names of the convolutions of a branch, step by step: branch3x3_1, then branch3x3_2a and branch3x3_2b."""
        names = []
        for number, step in enumerate(branch, 1):
            units = step if isinstance(step[0], tuple) else (step,)
            is_last = number == len(branch)
            stem = name if len(branch) == 1 else f"{name}_{number}"
            names.append(tuple(stem + letter for letter in ("ab" if len(units) == 2 else ("",))))
            for own, (outputs, kernel) in zip(names[-1], units, strict=True):
                strides = {"stride": 2, "padding": 0} if halves and is_last else {}
                self.add_module(own, _Convolution(channels, outputs, kernel, **strides))
            channels = sum(outputs for outputs, _ in units)
        return names

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for chain in self.chains:
            y = [x]
            for names in chain:
                y = [self.get_submodule(name)(y[0]) for name in names]
            parts += y
        return torch.cat([*parts, self._pool(x)], 1)

    def _pool(self, x: Tensor) -> Tensor:
        if self.branch_pool is None:
            return F.max_pool2d(x, 3, stride=2)
        if self.pools_by_maximum:
            return self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))
        return self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))


def to_levels(images: Tensor) -> Tensor:
    """(B, C, H, W) in [-1, 1] to (B, 3, H, W) of the whole numbers 0 to 255, which is what image files hold."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().expand(-1, 3, -1, -1)


def enlarge(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, C, side, side), bilinear as TensorFlow 1 does: output i is read at input i * H / side."""
    for axis in (2, 3):
        place = torch.arange(side, device=x.device, dtype=x.dtype) * (x.shape[axis] / side)
        below = place.floor().long()
        above = (below + 1).clamp(max=x.shape[axis] - 1)
        share = (place - below).view(-1, 1) if axis == 2 else place - below
        x = x.index_select(axis, below) * (1 - share) + x.index_select(axis, above) * share
    return x


def load_inception(path: Path) -> tuple[Inception, bool]:
    """The network with the weights of a file, and whether that is the published one. Raises ConfigError."""
    path = path.expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"inception={path} cannot be read: {error.strerror}") from error
    weights = _read_weights(path, content)
    if any(name.startswith("AuxLogits.") for name in weights):
        raise ConfigError(
            f"inception={path} is torchvision's Inception, of other weights: FID is of those that pytorch-fid and "
            f"torch-fidelity publish as ...inception-2015-12-05-{PUBLISHED}.pth"
        )
    network = Inception()
    try:
        network.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("fc.")})
    except RuntimeError as error:
        raise ConfigError(f"inception={path} does not hold the weights of Inception-v3") from error
    return network.eval(), hashlib.sha256(content).hexdigest().startswith(PUBLISHED)


def _read_weights(path: Path, content: bytes) -> dict[str, Tensor]:
    import io
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if path.suffix == ".safetensors":
            return load(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(f"inception={path} is no state dict, as .pth or .safetensors") from error
    is_weights = isinstance(found, dict) and all(isinstance(tensor, Tensor) for tensor in found.values())
    if not is_weights:
        raise ConfigError(f"inception={path} is no state dict: it must map names to tensors")
    return found
