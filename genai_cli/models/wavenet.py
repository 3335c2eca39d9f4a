"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions over any sequence.

`genai train model=wavenet dataset=tones`, `dataset=sines`, or `dataset=shakespeare`, then
`genai sample run=latest given=recent.csv length=24`, or `prompt="ROMEO:" length=500`.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn import mu_law
from genai_cli.nn.dilated import DilatedLayer, Queues
from genai_cli.nn.feature_chain import FeatureChain
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.next_token import next_token_figures, next_token_loss
from genai_cli.nn.random import RowRandom, inverse_cdf
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.generation import generate
from genai_cli.samplers.keep import given_rows, kept_steps

CHAIN_WIDTH = 32  # hidden units for each number of a step of a series
NUM_COMPONENTS = 10  # of the mixture that tells it


class WaveNet(GenerativeModel):
    """`stacks` times `depth` gated layers of `width` channels, whose reach doubles from layer to layer of a stack.

    A prediction looks back on stacks * (2 ** depth - 1) + 1 places, and on zeros before the beginning. Tokens are told
    by a softmax, samples of audio by one over 256 levels of the mu-law (Section 2.2), the numbers of a step of a series
    one after the other, by mixtures of `num_components` Gaussians. `conditional` learns p(x | label).
    """

    modalities = ("text", "music", "molecules", "codes", "series", "audio")
    monitor = "nll"
    figures = {"nll": "nats per token, exact -log p(x)"}
    tiny = {"width": 8, "depth": 2, "stacks": 1}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 6,
        stacks: PositiveInt = 2,
        num_components: PositiveInt | None = None,
        conditional: bool = False,
    ):
        super().__init__(spec)
        if conditional and not spec.classes:
            raise ValueError("model.conditional=true needs data with labels; take model.conditional=false")
        if spec.modality != "series" and num_components is not None:
            raise ValueError(
                f"model.num_components={num_components} is of series, and these are {spec.modality}: leave it out"
            )
        self.num_classes = len(spec.classes) if conditional else 0
        self.embedding: nn.Module
        outputs: nn.Module
        if spec.modality == "series":
            self.figures = {"nll": "nats, exact -log p(x)"}
            self.embedding = nn.Linear(spec.shape[1], width)
            outputs = FeatureChain(
                spec.shape[1], CHAIN_WIDTH, condition_dim=width, num_components=num_components or NUM_COMPONENTS,
                value_range=spec.value_range,
            )  # fmt: skip
        elif spec.modality == "audio":
            self.figures = {
                "nll": "nats per sample, exact -log p(x)", "bits_per_sample": "bits per sample, exact -log p(x)"
            }  # fmt: skip
            # The paper feeds levels as one-hot vectors, which know nothing of their order; as numbers it learns sooner.
            self.embedding, outputs = nn.Linear(1, width), nn.Linear(width, mu_law.NUM_LEVELS)
        else:
            self.embedding = nn.Embedding(spec.vocabulary_size, width)
            outputs = nn.Linear(width, spec.vocabulary_size)
        self.tokenizer = tokenizer_of(spec) if spec.is_tokens else None
        self.layers = nn.ModuleList(
            DilatedLayer(width, dilation=2**index, num_classes=self.num_classes)
            for _ in range(stacks)
            for index in range(depth)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), outputs)

    def forward(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, T) int64 -> logits (B, T, V): at t those of the token after t, from tokens 0 to t."""
        return self.head(self._read(self.embedding(tokens), label))

    def _read(self, embedded: Tensor, label: Tensor | None) -> Tensor:
        """(B, T, C) -> (B, T, C): at t what the head takes, from places 0 to t."""
        x = embedded.transpose(1, 2)  # (B, C, T)
        skips = torch.zeros_like(x)
        for layer in self.layers:
            x, skip = layer(x, label)
            skips = skips + skip
        return skips.transpose(1, 2)

    def nll(self, batch: Batch) -> Tensor:
        """Of signals, -log p of each number given all before it, in nats: (B, T) of audio, (B, T, C) of series."""
        x = batch[self.spec.key]
        x = mu_law.encode(x) if self.spec.modality == "audio" else x
        late = F.pad(self._embed(x), (0, 0, 1, -1))  # at t the place before t
        features = self._read(late, self._label_of(batch))
        if self.spec.modality == "audio":
            return F.cross_entropy(self.head(features).float().transpose(1, 2), x, reduction="none")
        return self.head[-1].nll(self.head[:-1](features), x)

    def _embed(self, x: Tensor) -> Tensor:
        """Places of a signal, levels (B, ...) of audio or (B, ..., C) of series, to (B, ..., width)."""
        return self.embedding(mu_law.evenly(x).unsqueeze(-1) if self.spec.modality == "audio" else x)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per token, a mean over the targets that the mask leaves in; of signals per number."""
        if not self.spec.is_tokens:
            return self.nll(batch).mean(), {}
        return next_token_loss(self(batch["tokens"][:, :-1], self._label_of(batch)), batch), {}

    def evaluate(self, batch: Batch) -> Metrics:
        """Nats per token of each window and how many tokens that is the mean of; of audio per sample, of series each.

        Audio is scored as its levels, a series as a density per unit of the data as they are fed.
        """
        if self.spec.is_tokens:
            return next_token_figures(self(batch["tokens"][:, :-1], self._label_of(batch)), batch)
        nll = self.nll(batch)
        if self.spec.modality == "series":
            return {"nll": nll.sum((1, 2))}
        return {"nll": nll.mean(1), "bits_per_sample": nll.mean(1) / math.log(2)}

    def _label_of(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.num_classes else None

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        temperature: NonNegativeFloat = 1.0,
        top_k: PositiveInt | None = None,
        top_p: Probability | None = None,
        min_p: Probability | None = None,
        repetition_penalty: PositiveFloat = 1.0,
        length: PositiveInt | None = None,
        prompt: Tensor | None = None,
        prompts: list[Tensor] | None = None,
        stop: str | None = None,
        beam: PositiveInt | None = None,
        grammar: bool | None = None,
        label: NonNegativeInt | None = None,
        given: Tensor | None = None,
        keep: PositiveInt | Literal["first_half"] | None = None,
    ) -> Tensor:
        """(B, P + length) int64: the prompt (P,), then `length` tokens, by default a window of the data.

        Of signals, what stays of `given` (N, P', ...), its last `keep` steps or `first_half` or all, then `length`
        more steps, by default a window, or the other half. A given series stays as it is, a given sound as the levels
        of the mu-law that it is read in. Class-conditional samples are of `label`, or of each class in turn.
        Raises ValueError for options that are of tokens where there are none, and the other way round.
        """
        decoding = {
            "top_k": top_k, "top_p": top_p, "min_p": min_p, "prompt": prompt, "prompts": prompts, "stop": stop,
            "beam": beam, "grammar": grammar,
        }  # fmt: skip
        if self.spec.is_tokens:
            if given is not None or keep is not None:
                raise ValueError(f"given and keep are of signals: {self.spec.modality} goes on from a prompt")
            options = {**decoding, "repetition_penalty": repetition_penalty, "length": length, "label": label}
            return torch.stack(list(self.stream(random, temperature=temperature, **options)), 1)
        foreign = [key for key, value in decoding.items() if value is not None]
        foreign += ["repetition_penalty"] if repetition_penalty != 1.0 else []
        if foreign:
            own = "temperature, length, label, given, keep"
            raise ValueError(f"{', '.join(foreign)}: of tokens alone; a signal is drawn with {own}")
        labels = self._sample_labels(random, label)
        if given is None:
            return self._draw_signal(random, None, length or self.spec.shape[0], temperature, labels)
        beginning = kept_steps(given, keep)  # (N, P, ...)
        if not beginning.isfinite().all():
            raise ValueError(
                "what is given has gaps, and it goes on from a beginning that is whole: fill the empty cells, or take "
                "a model that draws what is between, such as flow_matching"
            )
        length = length or (given.shape[1] - beginning.shape[1] if keep == "first_half" else self.spec.shape[0])
        return self._draw_signal(random, given_rows(beginning, random), length, temperature, labels)

    @torch.inference_mode()
    def stream(
        self, random: RowRandom, *, length: int | None = None, label: int | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """See `samplers.generation.generate` for the options."""
        length = self.spec.shape[0] if length is None else length
        predict = QueuedPredictor(self, self._sample_labels(random, label))
        yield from generate(predict, self.tokenizer, random, length=length, **options)

    def _sample_labels(self, random: RowRandom, label: int | None) -> Tensor | None:
        if self.num_classes:
            return sample_labels(random, self.num_classes, label)
        if label is not None:
            raise ValueError(f"label={label} needs a model trained with model.conditional=true")
        return None

    def _draw_signal(
        self, random: RowRandom, beginning: Tensor | None, length: int, temperature: float, label: Tensor | None
    ) -> Tensor:
        """`beginning` (B, P, ...), if any, and `length` more: (B, P + length), of series (B, P + length, C)."""
        queues = Queues(self.layers, label)
        is_audio = self.spec.modality == "audio"
        noise = random.uniform(length, *((1,) if is_audio else (self.spec.shape[1], 2)))
        embedded = noise.new_zeros(random.size, self.head[1].in_features)
        x, places = None, []
        if beginning is not None:
            for place in (mu_law.encode(beginning) if is_audio else beginning).unbind(1):
                queues.read(embedded)
                x, embedded = place, self._embed(place)
                places.append(place)
        for now in range(length):
            features = queues.read(embedded)
            if is_audio:
                logits = self.head(features).float() / max(temperature, 1e-6)
                x = inverse_cdf(logits, noise[:, now])
            else:
                x = self.head[-1].draw(self.head[:-1](features), x, noise[:, now], temperature)
            embedded = self._embed(x)
            places.append(x)
        drawn = torch.stack(places, 1)
        return mu_law.decode(drawn) if is_audio else drawn


class QueuedPredictor:
    """Next-token logits of growing sequences."""

    def __init__(self, model: WaveNet, label: Tensor | None):
        self.model = model
        self.queues = Queues(model.layers, label)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, V)."""
        for place in range(self.queues.num_read, tokens.shape[1]):
            # `forward`, not a call: a step of one token is not to be compiled.
            features = self.queues.read(self.model.embedding.forward(tokens[:, place]))
        return self.model.head.forward(features)

    def select(self, rows: Tensor) -> None:
        self.queues.select(rows)
