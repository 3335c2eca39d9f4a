"""What a data set is to the rest of the program: a `Spec`, three splits that never overlap, and batches.

A model is built from the spec alone, so its YAML never repeats `image_size: 28`, and a trained run can be sampled
where its data are not at hand: the spec travels in the run directory as `spec.json`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from genai_cli.errors import ExitCode, GenaiError
from genai_cli.nn.random import RowRandom

SplitName = Literal["train", "validation", "test"]

# The key under which a batch holds the data themselves, by modality.
DATA_KEYS = {
    "image": "image", "points": "points", "text": "tokens", "music": "tokens", "molecules": "tokens", "rolls": "roll",
}  # fmt: skip
DATA_KEYS |= {"series": "series", "audio": "audio"}
DATA_KEYS |= {"codes": "tokens", "latents": "latent"}  # of a trained run's encoder (data/first_stage.py)


class DataError(GenaiError):
    """The data are missing, broken or not what they should be. The message says what to do."""

    exit_code = ExitCode.DATA


@dataclass(frozen=True)
class Spec:
    """What one example looks like. All that a model may know of its data before it sees them."""

    modality: str  # a key of DATA_KEYS
    shape: tuple[int, ...]  # of one example: (C, H, W) image, (D,) points, (T,) tokens or audio, (T, C) series
    value_range: tuple[float, float] | None = None  # of continuous data; None where unbounded
    classes: tuple[str, ...] = ()  # names of the labels, where a batch has "label"
    tokenizer: Mapping[str, Any] | None = None  # JSON form (data/tokenizers.py), where the data are tokens
    vocabulary_size: int | None = None  # where the data are tokens
    levels: int = 256  # evenly spaced values that a pixel of an image takes; 2: black and white
    columns: tuple[str, ...] = ()  # names of the C numbers of each step of a series
    # Of each column, where its numbers are scaled: it is offset + scale * x in the units of the file.
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    sample_rate: int | None = None  # of audio: samples a second
    first_stage: Mapping[str, Any] | None = None  # the checkpoint whose codes the data are (data/first_stage.py)
    source: "Spec | None" = None  # of what an example is made from, where a batch has "source", (B, *source.shape)
    is_paired: bool = False  # whether a source belongs to the example beside it, or the two are drawn apart

    @property
    def key(self) -> str:
        """The batch key of the data: batch[spec.key] is (B, *shape); tokens (B, T + 1), inputs and targets at once."""
        return DATA_KEYS[self.modality]

    @property
    def is_tokens(self) -> bool:
        return self.vocabulary_size is not None

    @property
    def has_levels(self) -> bool:
        """Whether each number is one of `levels` evenly spaced values of a range, as a pixel is; else it is real."""
        return self.value_range is not None and self.modality not in ("series", "audio")

    def side(self, key: str) -> "Spec":
        """Of what a batch holds under `key`: the spec of the sources, or this one."""
        if key != "source":
            return self
        assert self.source is not None, "these data have no source"
        return self.source

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Spec":
        sequences = ("shape", "value_range", "classes", "columns", "offset", "scale")
        present = [name for name in sequences if record.get(name) is not None]
        lists = {name: tuple(record[name]) for name in present}
        source = None if record.get("source") is None else cls.from_json(record["source"])
        return cls(**{**record, **lists, "source": source})


class Batch(dict[str, Tensor]):
    """Tensors of B examples by name (`image`, `label`, `tokens`, ...), and random numbers for those B rows.

    Those of `random` are new in each call of a loss, those of `shared` are the same for all players of a step.
    """

    def __init__(self, tensors: Mapping[str, Tensor], random: RowRandom, shared: RowRandom | None = None):
        super().__init__(tensors)
        self.random = random
        self.shared = random if shared is None else shared

    @property
    def size(self) -> int:
        return self.random.size


class Split(ABC):
    """One part of a data set: a fixed sequence of examples, fetched by position."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        """The examples at `positions` ((B,) int64, CPU), ready for a model: in the spec's range, on its device."""

    def augment(self, rows: dict[str, Tensor], random: RowRandom) -> dict[str, Tensor]:
        """Fetched rows as a training step sees them, where they are drawn anew each time; by default as they are.

        A function of the rows and of `random`, which in training is one of (seed, step, row).
        """
        return rows

    @abstractmethod
    def content_hash(self) -> str:
        """sha256 of the stored examples, as hex: printed beside every figure measured on this split."""

    def name_of(self, position: int) -> str:
        """What a user would call the example at `position`: its file, where it is one."""
        return f"example {position}"

    def to(self, device: torch.device) -> "Split":
        """The split with its storage on `device`, where it is small enough to live there; else itself."""
        return self

    @property
    def streams(self) -> bool:
        """Whether `fetch` reads files, so that worker processes should do it ahead of time."""
        return False


class TensorSplit(Split):
    """Examples held as compact tensors (uint8 pixels, int32 tokens) where the model is; decoded after indexing."""

    def __init__(self, tensors: Mapping[str, Tensor], decode: Callable[[dict[str, Tensor]], dict[str, Tensor]]):
        self.tensors = dict(tensors)  # each (N, ...)
        self.decode = decode  # rows as stored -> rows as a model wants them

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def fetch(self, positions: Tensor) -> dict[str, Tensor]:
        rows = {}
        for name, tensor in self.tensors.items():
            rows[name] = tensor.index_select(0, positions.to(tensor.device))
        return self.decode(rows)

    def to(self, device: torch.device) -> "TensorSplit":
        return TensorSplit({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.decode)

    def content_hash(self) -> str:
        import hashlib

        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            digest.update(self.tensors[name].cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Decoder(Protocol):
    """From the codes that a trained run makes of its data back to these (data/first_stage.py)."""

    @property
    def spec(self) -> Spec: ...

    def __call__(self, codes: Tensor) -> Tensor: ...


class Dataset(ABC):
    """A named data set. The constructor's keyword arguments are its YAML; `load` reads a split when it is asked for."""

    modality: ClassVar[str]
    rules: ClassVar[dict[str, str]] = {}  # over several keys, as a model's
    has_source: ClassVar[bool] = False  # whether an example has a source beside it (`Spec.source`)
    variant: ClassVar[str | None] = None  # an option between whose values no figure compares: shown with the name
    spec: Spec
    per_channel: "Dataset | None" = None  # whose images the channels are, where a label is the digits of theirs
    notes: tuple[str, ...] = ()  # what a user should know of the files found so far, such as those left out
    source: "Dataset | None" = None  # whose examples these are the codes of, position by position
    code_decoder: Decoder | None = None  # from these codes back to its examples

    def connect(self, open_run: Callable[[str, str], Any]) -> None:  # noqa: B027 - most have nothing to do
        """Called once, before all else: `open_run(run, checkpoint)` is for data that a trained run makes.

        It returns a `FirstStage` (data/first_stage.py). Other data sets have no use for it.
        """

    @abstractmethod
    def load(self, split: SplitName) -> Split:
        """Read one split. Raises DataError, naming what to put where, if the files are not there or not whole."""

    def adopt(self, tokenizer: Mapping[str, Any]) -> None:
        """Read the tokens of a run that training starts from (its tokenizer, JSON form) in place of one's own.

        Raises DataError where the data cannot be written in them; by default, wherever the two differ.
        """
        raise DataError(
            "the data have another vocabulary than init: start from a run on the same kind of data, or leave init out"
        )
