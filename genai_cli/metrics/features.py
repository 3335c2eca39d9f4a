"""What images are compared by: a small network's features, trained on the data set at hand or, without labels, random.

Distances between pixels say little about what a picture shows. The customary features are those of an Inception
network trained on ImageNet: 2048 numbers that know of dogs and not of digits. Ours are 64 numbers of a network that
has learned the classes of the very data set (as Lucic et al. 2018 and Binkowski et al. 2018 do for MNIST); so our
Frechet distance is not FID, and compares only with others of the same `extractor_sha256`.

- `classifier`: trained on the labels of the training split, once, and kept in the user's cache with its accuracy on
  the test split, which every protocol repeats.
- `random`: the same network untrained, from a fixed seed (as in Naeem et al. 2020, Section 5), for data without
  labels. A function of the images' shape alone, so that it needs no cache and compares between data sets of a shape.
- `efficientnet`: a network that has learned ImageNet, for photographs (`metrics/efficientnet.py`); an extra.
- `inception`: the customary one, from weights that the user has (`metrics/inception.py`).
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.metrics.efficientnet import EfficientNetLite0, load_efficientnet
from genai_cli.metrics.inception import Inception, load_inception

NUM_FEATURES = 64
EXAMPLES_SEEN = 150_000  # in training: two and a half passes over MNIST
BATCH_SIZE = 128
PEAK_LR = 3e-3
VERSION = 1  # of all that follows; a change of it makes every cached classifier anew
VARIABLE = "GENAI_CACHE"
_INITIALISATION, _ORDER = 11, 12  # seeds
_PIXELS_AT_ONCE = 1 << 22
Report = Callable[[int], None]  # steps done


class FeatureNetwork(nn.Module):
    """(B, C, H, W) in [-1, 1] to features (B, 64), and those to logits (B, K): three convolutions, each then pooled.

    Images of more than 40 pixels are halved by the first convolution, so that the work does not grow with the area.
    """

    num_features = NUM_FEATURES

    def __init__(self, shape: tuple[int, ...], num_classes: int):
        super().__init__()
        channels, height, width = shape
        stride = 1 if max(height, width) <= 40 else 2
        self.convolutions = nn.Sequential(
            *_stage(channels, 16, stride=stride), *_stage(16, 32), *_stage(32, NUM_FEATURES), nn.Flatten()
        )
        with torch.no_grad():
            flat = self.convolutions.eval()(torch.zeros(1, *shape)).shape[1]
        self.project = nn.Linear(flat, NUM_FEATURES)
        self.head = nn.Linear(NUM_FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.project(self.convolutions(images)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class StackedNetwork(nn.Module):
    """A network of one channel for images each of whose channels is one: stacked digits (Metz et al. 2017).

    Features of the channels side by side; classes are all tuples of theirs, the first channel's counting most.
    """

    def __init__(self, network: FeatureNetwork, num_channels: int):
        super().__init__()
        self.network = network
        self.num_features = num_channels * network.num_features

    def features(self, images: Tensor) -> Tensor:
        return torch.cat([self.network.features(channel) for channel in images.split(1, 1)], 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K^C): the log probability of every tuple of classes."""
        joint = torch.zeros(len(images), 1, device=images.device)
        for channel in images.split(1, 1):
            joint = (joint[:, :, None] + self.network(channel).log_softmax(1)[:, None]).flatten(1)
        return joint


def _stage(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]


@dataclass(frozen=True)
class Extractor:
    """A network in evaluation mode, and what a protocol says of it."""

    name: str  # "classifier", "random", "efficientnet", "inception"
    network: FeatureNetwork | StackedNetwork | EfficientNetLite0 | Inception
    accuracy: float | None  # of the classifier on the test split; of stacked images, for one channel
    is_fid: bool = False  # whether a Frechet distance of these features is what others call FID

    @property
    def sha256(self) -> str:
        """Of the weights, by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def protocol(self) -> dict[str, Any]:
        record = {"extractor": self.name, "extractor_sha256": self.sha256, "features": self.network.num_features}
        if self.is_fid:
            record["is_fid"] = True
        return record if self.accuracy is None else {**record, "extractor_accuracy": self.accuracy}

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] to (N, D), on the CPU."""
        return self._map(self.network.features, images)

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the most likely class, (N,) int64, on the CPU."""
        return self._map(self.network, images).argmax(1)

    def _map(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        side = getattr(self.network, "side", max(images.shape[-2:]))
        blocks = images.split(max(1, _PIXELS_AT_ONCE // side**2 // 10))
        return torch.cat([function(block.to(device)).float().cpu() for block in blocks])


def stacked(extractor: Extractor, num_channels: int) -> Extractor:
    """The extractor of images of `num_channels` channels, each of which `extractor` is for."""
    return Extractor(extractor.name, StackedNetwork(extractor.network, num_channels), extractor.accuracy)


def random_extractor(shape: tuple[int, ...]) -> Extractor:
    """The untrained network, the same for every data set of this shape."""
    return Extractor("random", _initialised(shape, 1), None)


def efficientnet_extractor(device: torch.device) -> Extractor:
    """EfficientNet-Lite0. Raises ConfigError where its weights are not installed."""
    return Extractor("efficientnet", load_efficientnet().to(device), None)


def inception_extractor(path: Path, device: torch.device) -> Extractor:
    """Inception-v3 with the weights of a file. Raises ConfigError for what holds none."""
    network, is_fid = load_inception(path)
    return Extractor("inception", network.to(device), None, is_fid)


def _initialised(shape: tuple[int, ...], num_classes: int) -> FeatureNetwork:
    """From a seed of its own, torch's global generator left as it was; rectified layers keep the size of a signal."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_INITIALISATION)
        network = FeatureNetwork(shape, num_classes)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
    return network.eval()


def train_classifier(
    images: Tensor, labels: Tensor, num_classes: int, *, device: torch.device | None = None,
    examples_seen: int | None = None, report: Report = lambda done: None,
) -> FeatureNetwork:  # fmt: skip
    """A network trained on images (N, C, H, W) in [-1, 1] and labels (N,) int64: AdamW, one cycle, fixed seeds.

    `examples_seen` is by default EXAMPLES_SEEN.
    """
    network = _initialised(tuple(images.shape[1:]), num_classes).to(device or "cpu").train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LR, weight_decay=1e-2)
    steps = num_steps(examples_seen)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps + 1)
    generator = torch.Generator().manual_seed(_ORDER)
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        while len(order) < BATCH_SIZE:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        logits = network(images[rows].to(network.head.weight.device))
        loss = F.cross_entropy(logits, labels[rows].to(logits.device), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        report(step + 1)
    return network.eval()


def num_steps(examples_seen: int | None = None) -> int:
    """Of the training of a classifier."""
    return max(1, (examples_seen or EXAMPLES_SEEN) // BATCH_SIZE)


def accuracy(network: FeatureNetwork, images: Tensor, labels: Tensor) -> float:
    """The share of images whose most likely class is their label."""
    return (Extractor("classifier", network, None).classify(images) == labels.cpu()).double().mean().item()


# -- the cache ---------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """$GENAI_CACHE, or the user's cache."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "genai"


def cached_classifier(
    identity: Mapping[str, Any], shape: tuple[int, ...], num_classes: int, train: Callable[[], tuple[nn.Module, float]]
) -> Extractor:
    """The classifier of the data that `identity` names (hashes of its splits), from the cache; else from `train`.

    `train` returns the network and its accuracy. A file that is damaged or of another version counts as not there.
    """
    key = {**identity, "shape": list(shape), "classes": num_classes, "version": VERSION}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "extractors" / f"classifier-{name}.safetensors"
    found = _read(path, shape, num_classes)
    if found is None:
        network, measured = train()
        found = Extractor("classifier", network, measured)
        _write(path, found, key)
    return found


def _read(path: Path, shape: tuple[int, ...], num_classes: int) -> Extractor | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            record = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        network = FeatureNetwork(shape, num_classes).eval()
        network.load_state_dict(tensors)
        found = Extractor("classifier", network, float(record["accuracy"]))
        return found if found.sha256 == record["sha256"] else None
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError):
        return None


def _write(path: Path, extractor: Extractor, key: Mapping[str, Any]) -> None:
    """In one move, so that two processes may do it at once. A cache that cannot be written is no error."""
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in extractor.network.state_dict().items()}
    record = {"accuracy": repr(extractor.accuracy), "sha256": extractor.sha256, "data": json.dumps(key)}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(save(tensors, metadata=record))
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
