"""What a generative model is to the engine: a module that knows its losses, its optimizer steps and how to sample.

The engine owns the loop; the model owns the program of one optimizer step, written as the paper's algorithm box.
A model with one objective writes `loss` and `sample` and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Decoder, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.nn.gaussians import code_usage
from genai_cli.nn.random import RowRandom

Metrics = dict[str, Tensor]
LossFunction = Callable[[Batch], tuple[Tensor, Metrics]]


class Step(Protocol):
    """What `train_step` is given: the mechanics of one optimizer step, written once in `engine/step.py`."""

    number: int  # steps already taken

    def minimize(self, group: str, loss: LossFunction, *, batch: int = 0) -> None:
        """One optimizer update of parameter group `group` on `loss`.

        `loss(batch)` returns a scalar, the mean over the examples it is given, and metrics (scalars) to log under the
        group's name. It runs once a micro-batch. `batch` picks one of the `batches_per_step` batches of this step.
        """
        ...


class GenerativeModel(nn.Module, ABC):
    """Base of all models. A final class: `def __init__(self, spec, *, option: Type = default, ...)`.

    The annotations of the constructor are the schema of the model's YAML, and those of `sample`'s keyword-only
    arguments the schema of `genai sample`: both are read without importing the file (`registry.py`), so they are
    written with the names of `rules.py`, builtins and `Literal`.
    """

    modalities: ClassVar[tuple[str, ...]]  # of data it can be trained on: keys of DATA_KEYS, such as "image"
    rules: ClassVar[dict[str, str]] = {}  # "width % heads == 0": "width must be divisible by heads"
    tiny: ClassVar[dict[str, Any]] = {}  # options of the smallest instance that is still all of the model; for tests
    # Options of samples that models of its kind have and this has not, and why: {"latent": "..."}.
    without: ClassVar[dict[str, str]] = {}
    # What keys of `evaluate` mean, where metrics/likelihood.py does not know: {"nll": "nats, exact -log p(x)"}.
    figures: Mapping[str, str] = {}
    monitor: ClassVar[str | None] = None  # the key of `evaluate` whose lowest mean marks the best checkpoint
    # A model that makes one thing from another: "pairs" if it learns from pairs, "domains" if two sets are enough.
    translates: ClassVar[str | None] = None
    is_bound_to_window: ClassVar[bool] = False  # of token models: whether samples are never longer than a window
    batches_per_step: int = 1  # how many batches one step draws
    num_codes: int = 0  # how many a quantiser has: what `codes_of` returns is below
    code_decoder: Decoder | None = None  # from samples to what is seen, where the data are codes of another run

    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The objective, a mean over the batch, and metrics to log. Draws random numbers from `batch.random` only."""
        raise TypeError(f"{type(self).__name__} defines neither `loss` nor `train_step`")

    def train_step(self, step: Step) -> None:
        """One optimizer step. Several players call `step.minimize` several times."""
        step.minimize("model", self.loss)

    def learn_from(self, teacher: "GenerativeModel") -> None:
        """Take a trained model as teacher, called before training where `model.teacher` names its run.

        It is no part of this model and is not there when it is sampled. Raises ValueError, saying what the run is not.
        """
        raise NotImplementedError(f"{type(self).__name__} has no teacher")

    @abstractmethod
    def sample(self, random: RowRandom) -> Tensor:
        """`random.size` new examples, (B, *spec.shape), in the spec's value range.

        Row i depends on row i of `random` alone. Options are keyword-only arguments.
        """

    def sides(self, **options: Any) -> tuple[str, str]:
        """Of a model that translates: the batch keys of what `sample` is `given` with `options`, and of its samples."""
        return "source", self.spec.key

    def columns(self, given: Tensor, samples: Tensor, **options: Any) -> list[Tensor]:
        """Of a model that translates: what a sheet shows beside each other, (B, ...) each.

        `samples` (B, ...) were made with `options` of `given` (B, ...), row by row.
        """
        return [given, samples]

    def read_prompt(self, text: str) -> Tensor:
        """What `sample` takes as a prompt, from what the user types. Raises ValueError."""
        return tokenizer_of(self.spec).prompt(text)

    def stream(self, random: RowRandom, **options: Any) -> Iterator[Tensor]:
        """The tokens (B,) that `sample` would return with these options, place by place, as they are drawn."""
        raise NotImplementedError(f"{type(self).__name__} does not draw its samples piece by piece")

    def draw_latent(self, random: RowRandom) -> Tensor:
        """Codes from the prior, (random.size, latent_dim), for `decode`: what `sample` begins with."""
        raise NotImplementedError(f"{type(self).__name__} has no latent vector")

    def decode(self, latent: Tensor) -> Tensor:
        """Codes (B, latent_dim) to examples (B, *spec.shape); the most likely or mean ones, without noise.

        A model with one latent vector writes this and `draw_latent`, and can then be interpolated and traversed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no latent vector")

    def encode(self, x: Tensor) -> Tensor:
        """Examples (B, *spec.shape) to their codes (B, latent_dim); the mean, where codes are random."""
        raise NotImplementedError(f"{type(self).__name__} has no encoder")

    def encode_rows(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Rows of a split to what `genai encode` writes of them, (B, D): `encode` of the data.

        A model that reads more than these, such as labels, or that has no one vector to `decode`, writes this in place
        of `encode`. Raises ValueError where something is missing.
        """
        return self.encode(rows[self.spec.key])

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of a Gaussian q(z | x), (B, latent_dim) each, where codes are random.

        The doctor measures by it what codes say of the data.
        """
        raise NotImplementedError(f"{type(self).__name__} has no posterior")

    def posterior_of_rows(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """`posterior` of rows of a split; a model whose q reads more than the data, such as labels, writes this."""
        return self.posterior(rows[self.spec.key])

    @property
    def has_posterior(self) -> bool:
        names = ("posterior", "posterior_of_rows")
        return any(getattr(type(self), name) is not getattr(GenerativeModel, name) for name in names)

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, T) to a vector of each row, (B, D), of the places that `mask` (B, T) leaves in."""
        raise NotImplementedError(f"{type(self).__name__} does not embed texts")

    def codes_of(self, x: Tensor) -> Tensor:
        """Examples (B, *spec.shape) as numbers of a quantiser's codes, (B, T) int64."""
        raise NotImplementedError(f"{type(self).__name__} has no quantiser")

    @property
    def differentiates_twice(self) -> bool:
        """Whether a loss holds a derivative, which torch's compiler cannot differentiate: no `device.compile` then.

        So it does if a module of it says so (nn/game.py does); a model with such a loss of its own overrides this.
        """
        own = (module for module in self.children() if not isinstance(module, GenerativeModel))  # no first stage
        return any(getattr(module, "differentiates_twice", False) for module in own)

    def image_of(self, codes: Tensor) -> Tensor:
        """Codes (B, T), as `codes_of` returns them, to examples (B, *spec.shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no quantiser")

    def latents_of(self, x: Tensor) -> Tensor:
        """Examples to what a second model can learn in their place (`dataset=latents`): the code, or a map of them."""
        return self.encode(x)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """What `latents_of` returns, or what was drawn like it, to examples (B, *spec.shape)."""
        return self.decode(latents)

    @property
    def shown_spec(self) -> Spec:
        """What `shown` returns."""
        return self.spec if self.code_decoder is None else self.code_decoder.spec

    def shown(self, samples: Tensor) -> Tensor:
        """Samples (B, *spec.shape) as they are looked at and judged: decoded, where they are codes of another run."""
        return samples if self.code_decoder is None else self.code_decoder(samples)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        """The players: a partition of the parameters, each group with an optimizer of its own."""
        return {"model": self.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        """What is averaged when `train.ema` is set: what `sample` uses."""
        return self.parameters()

    def shard_units(self) -> list[nn.Module]:
        """What `device.shard=true` divides among processes, inner to outer; empty where the model must stay whole.

        The last unit holds every parameter, and a loss reaches parameters only by calling it: not its `forward`, nor
        another method. A unit's weights are there while it is called and while it is differentiated.
        """
        return []

    def evaluate(self, batch: Batch) -> Metrics:
        """Held-out quantities of each example, (B,) each, such as {"nll": nats}. Empty if the model has none.

        Options of `genai evaluate` are keyword-only arguments, as those of `sample` are of `genai sample`.
        """
        return {}

    def statistics(self, batch: Batch) -> dict[str, float]:
        """Figures of many held-out examples together that are no means over them: here, how much of a code is in use.

        No more than a few units, and few nats, where the posterior has collapsed.
        """
        return code_usage(*self.posterior_of_rows(batch), batch.random) if self.has_posterior else {}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """More to look at beside the samples: name -> (B', *spec.shape), such as data above their reconstructions."""
        return {}

    def baselines(self, train: Tensor, test: Tensor) -> dict[str, float]:
        """What a simple known method of the same size scores: name of an `evaluate` key + suffix -> its value.

        `train` and `test` are (N, *spec.shape). Printed beside the model's own figures.
        """
        return {}
