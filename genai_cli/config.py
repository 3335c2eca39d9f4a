"""The keys that every run has, as dataclasses: the schema of `train`, `optimizer`, `device`, `run` and `logger`.

Free of torch and Hydra: `cli.py` checks what the user typed against these before anything heavy is imported.
A model's and a data set's own keys are the annotations of their constructors (`registry.py`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genai_cli.errors import ConfigError
from genai_cli.rules import (
    AverageLength,
    CheckpointName,
    Duration,
    FolderName,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    RunName,
)

__all__ = [
    "AdapterConfig",
    "CompareConfig",
    "Config",
    "ConfigError",
    "DeviceConfig",
    "DoctorConfig",
    "EncodeConfig",
    "EvaluateConfig",
    "ExamineConfig",
    "LoggerConfig",
    "OptimizerConfig",
    "ReportConfig",
    "RunConfig",
    "SampleConfig",
    "TrainConfig",
    "conf_dir",
]


@dataclass(frozen=True)
class TrainConfig:
    """Length, rhythm and safety of a run. Periods are in optimizer steps; null turns one off."""

    steps: PositiveInt | None = None  # length of the run; or
    epochs: PositiveFloat | None = None  # length in passes over the training split
    batch_size: PositiveInt = 64  # examples a step, over all ranks and micro-batches
    # Micro-batches a step, to save memory; auto: one, and twice as many whenever memory runs out.
    accumulate: PositiveInt | Literal["auto"] = 1
    log_every: PositiveInt = 100
    sample_every: PositiveInt | None = 500
    save_every: PositiveInt | None = 500
    evaluate_every: PositiveInt | None = None
    evaluate_examples: PositiveInt | None = 1000  # of the validation split, each time; null: all of it
    # Samples scored at each evaluation (Frechet distance), the best checkpoint going by the score; null: as many as
    # `evaluate_examples` where the model has no figure of its own to go by, else none.
    score_samples: PositiveInt | None = None
    num_samples: PositiveInt = 64  # in a picture of `sample_every`
    clip_norm: PositiveFloat | None = None  # of the gradient of each group
    ema: Fraction | None = None  # decay of the moving average of the weights
    posthoc_ema: bool = False  # keep snapshots from which `ema_length` makes an average of any length afterwards
    keep: PositiveInt = 2  # newest checkpoints kept, beside the best
    nonfinite: Literal["stop", "skip", "rollback"] = "stop"  # when a loss or gradient is NaN or infinite
    nonfinite_limit: PositiveInt = 10  # such steps in a row (or rollbacks in all) before stopping after all


@dataclass(frozen=True)
class OptimizerConfig:
    """One optimizer for every parameter group; `overrides` changes keys for one group."""

    name: Literal["adam", "adamw", "sgd", "rmsprop", "adagrad"] = "adam"
    lr: NonNegativeFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)  # adam, adamw
    momentum: Fraction = 0.0  # sgd, rmsprop
    weight_decay: NonNegativeFloat = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final_lr_ratio: Fraction = 0.0  # of `lr`, where linear and cosine schedules end
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)  # keys above, of one group: overrides.GROUP.lr


@dataclass(frozen=True)
class DeviceConfig:
    """Where the run computes."""

    name: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    shard: bool = False  # divide weights, their average and optimizer states among the processes
    threads: PositiveInt | None = None  # CPU threads of each process; null: torch's choice
    workers: NonNegativeInt = 2  # loader processes, for data that do not fit in memory
    read_timeout: Duration | None = "30s"  # of a loader process for one example, before the run ends
    timeout: Duration | None = "30min"  # of a run in which nothing happens, before it ends


@dataclass(frozen=True)
class AdapterConfig:
    """What is learned beside the weights of `init`, which then stay as they are."""

    name: Literal["none", "lora"] = "none"
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0  # the adapters' output is multiplied by alpha / rank
    targets: tuple[str, ...] = ("*",)  # patterns of names: which layers get one


@dataclass(frozen=True)
class LoggerConfig:
    tensorboard: bool = True


Policy = Literal["ignore", "note", "stop", "rollback"]  # rollback: to the newest checkpoint from before it began


@dataclass(frozen=True)
class DoctorConfig:
    """What to do about each finding of the doctor (docs/DOCTOR.md) while a run trains."""

    mode_collapse: Policy = "note"
    discriminator_wins: Policy = "note"
    generator_wins: Policy = "note"
    frozen_player: Policy = "note"
    posterior_collapse: Policy = "note"
    dead_codebook: Policy = "note"
    memorisation: Policy = "note"
    overfitting: Policy = "note"
    exploding_gradients: Policy = "note"
    vanishing_gradients: Policy = "note"
    high_learning_rate: Policy = "note"
    patience: PositiveInt = 3  # values of a curve in a row that must agree before anything is found
    rollbacks: PositiveInt = 3  # in all, before stopping after all


@dataclass(frozen=True)
class RunConfig:
    root: FolderName = "outputs"  # where a run directory is made
    dir: FolderName | None = None  # or exactly this one; an unfinished run of the same configuration in it goes on
    name: RunName | None = None  # the end of the directory's name; null: MODEL_DATASET, as they were typed


@dataclass(frozen=True)
class Config:
    """All of a training run, checked: what `commands/train.py` is given and `config.yaml` holds."""

    model: dict[str, Any]  # "name" and the model's own keys
    dataset: dict[str, Any]  # "name" and the data set's own keys
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    doctor: DoctorConfig = field(default_factory=DoctorConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: NonNegativeInt = 0
    init: FolderName | None = None  # a run whose weights to start from
    freeze: tuple[str, ...] = ()  # of these, patterns of names that stay as they are
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    plugins: tuple[str, ...] = ()  # installed packages whose models and data sets may be named


@dataclass(frozen=True)
class SampleConfig:
    """`genai sample`. Other keys are the keyword arguments of the model's own `sample`."""

    run: FolderName  # a run directory, or "latest"
    num_samples: PositiveInt = 64
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 64
    checkpoint: CheckpointName = "last"  # "last", "best" or a step
    weights: Literal["auto", "ema", "raw"] = "auto"  # auto: the average where the run kept one
    ema_length: AverageLength | None = None  # or an average of this relative length, of a run with train.posthoc_ema
    out: FolderName | None = None  # a folder; null: one of DIR/samples, named after the request
    root: FolderName = "outputs"  # where "latest" looks
    interpolate: PositiveInt | None = None  # samples on each path from one noise to another; null: each on its own
    stream: bool = False  # print one text to the terminal as it is drawn
    condition: dict[str, float] = field(default_factory=dict)  # properties that molecules are asked to have: logp=2.5
    device: DeviceConfig = field(default_factory=DeviceConfig)
    options: dict[str, Any] = field(default_factory=dict)


MetricGroup = Literal[
    "figures", "text", "rules", "frechet", "kid", "manifold", "modes", "agreement", "diversity", "memorisation",
    "classifier_accuracy_score", "benchmark", "passages", "condition", "forecast",
]  # fmt: skip


@dataclass(frozen=True)
class EvaluateConfig:
    """`genai evaluate`: of a run, or of the images in one folder held against those in another.

    Other keys are the keyword arguments of the model's own `evaluate` and `sample`.
    """

    run: FolderName | None = None
    real: FolderName | None = None  # two folders of images in place of a run
    fake: FolderName | None = None
    text: str | None = None  # a text file in place of the split
    alerts: FolderName | None = None  # of MOSES: mcf.csv and wehi_pains.csv; null: where the package molsets has them
    metrics: tuple[MetricGroup, ...] | None = None  # null: all that apply
    # What images are compared by; auto: a classifier of the data where these have labels, else the random network.
    extractor: Literal["auto", "random", "efficientnet"] = "auto"
    inception: str | None = None  # or by Inception-v3: the file of its weights
    num_samples: PositiveInt = 2000  # drawn from the model
    split: Literal["validation", "test"] = "test"
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 256
    checkpoint: CheckpointName = "last"
    weights: Literal["auto", "ema", "raw"] = "auto"
    ema_length: AverageLength | None = None  # as of `genai sample`
    image_size: PositiveInt = 64  # the square that images of folders are brought to
    channels: Literal[1, 3] = 3  # of these
    root: FolderName = "outputs"
    device: DeviceConfig = field(default_factory=DeviceConfig)
    options: dict[str, Any] = field(default_factory=dict)  # of the model's `evaluate`
    sampling: dict[str, Any] = field(default_factory=dict)  # of its `sample`


@dataclass(frozen=True)
class EncodeConfig:
    """`genai encode`."""

    run: FolderName
    split: Literal["train", "validation", "test"] = "test"
    images: FolderName | None = None  # a folder, in place of the split
    label: NonNegativeInt | None = None  # the class of these images; null: as their sub-folders are named, if they are
    texts: FolderName | None = None  # a file of texts, one a line, in place of the split
    out: FolderName | None = None  # the file; null: codes/SPLIT.safetensors in the run directory
    batch_size: PositiveInt = 256
    checkpoint: CheckpointName = "last"
    weights: Literal["auto", "ema", "raw"] = "auto"
    root: FolderName = "outputs"
    device: DeviceConfig = field(default_factory=DeviceConfig)


@dataclass(frozen=True)
class ExamineConfig:
    """`genai doctor`."""

    run: FolderName
    num_samples: PositiveInt = 256  # drawn to look at
    examples: PositiveInt | None = 10_000  # of the training split that they are compared with; null: all of it
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 64
    checkpoint: CheckpointName = "last"
    weights: Literal["auto", "ema", "raw"] = "auto"
    root: FolderName = "outputs"
    device: DeviceConfig = field(default_factory=DeviceConfig)


@dataclass(frozen=True)
class ReportConfig:
    """`genai report`."""

    run: FolderName
    out: FolderName | None = None  # the file; null: report.html in the run directory
    examples: PositiveInt | None = 10_000  # of the training split that samples are compared with; null: all of it
    seed: NonNegativeInt = 0
    checkpoint: CheckpointName = "last"
    weights: Literal["auto", "ema", "raw"] = "auto"
    root: FolderName = "outputs"
    device: DeviceConfig = field(default_factory=DeviceConfig)


@dataclass(frozen=True)
class CompareConfig:
    """`genai compare`: of runs that there are, or of models that are trained for it, each for the same time."""

    runs: tuple[str, ...] = ()
    model: tuple[str, ...] = ()  # choices of `genai train model=`
    dataset: str | None = None
    budget: Duration | None = None  # of wall-clock time to train each, from its first step to its end
    options: tuple[str, ...] = ()  # more of what `genai train` takes, for each of them
    metrics: tuple[MetricGroup, ...] | None = None  # as of `genai evaluate`
    sample: dict[str, Any] = field(default_factory=dict)  # options of `genai sample`: one value, or a list to try each
    extractor: Literal["auto", "random", "efficientnet"] = "auto"  # as of `genai evaluate`
    inception: str | None = None  # as of `genai evaluate`
    by: str | None = None  # the metric of the charts; null: a distance of samples where there is one, else the first
    num_samples: PositiveInt = 2000  # drawn to evaluate each
    split: Literal["validation", "test"] = "test"
    seed: NonNegativeInt = 0
    out: FolderName | None = None  # a new folder; null: one under `root`
    root: FolderName = "outputs"
    device: DeviceConfig = field(default_factory=DeviceConfig)


def conf_dir() -> Path:
    """The packaged copy of `conf/` in an installed wheel, or the checkout's."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parent / "conf"
