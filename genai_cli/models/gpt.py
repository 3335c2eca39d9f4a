"""GPT: a causal transformer that predicts the next token (Radford et al. 2018, 2019).

`genai train model=gpt dataset=shakespeare`, then `genai sample run=latest prompt="ROMEO:" length=500 temperature=0.8`.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.next_token import masked_mean, next_token_figures, next_token_loss, without_padding
from genai_cli.nn.random import RowRandom
from genai_cli.nn.transformer import Transformer
from genai_cli.rules import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.generation import generate


class GPT(GenerativeModel):
    """A causal transformer: p(tokens) is the product of p(token | tokens before it)."""

    modalities = ("text", "music", "molecules", "codes")
    figures = {"nll": "nats per token, exact -log p(x)"}
    monitor = "nll"
    rules = {
        "width % heads == 0": "width must be divisible by heads",
        "heads % (kv_heads or heads) == 0": "heads must be divisible by kv_heads",
        "positions != 'rotary' or width // heads % 2 == 0": "rotary positions need an even width / heads",
    }
    tiny = {"width": 16, "depth": 2, "heads": 2, "kv_heads": 1, "dropout": 0.0}  # dropout draws its numbers by rank

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 4,
        heads: PositiveInt = 4,
        kv_heads: PositiveInt | None = None,
        activation: Literal["gelu", "relu2", "swiglu"] = "gelu",
        positions: Literal["rotary", "learned"] = "rotary",
        tied: bool = True,
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        (self.context,) = spec.shape  # T, tokens that a prediction may look back on
        self.tokenizer = tokenizer_of(spec)
        self.embedding = nn.Embedding(spec.vocabulary_size, width)
        self.transformer = Transformer(
            context=self.context, width=width, depth=depth, heads=heads, kv_heads=kv_heads,
            activation=activation, positions=positions, dropout=dropout,
        )  # fmt: skip
        self.head = None if tied else nn.Linear(width, spec.vocabulary_size, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> logits (B, T, V): at t those of the token after t, from tokens 0 to t."""
        return self.logits(self.transformer(self.embedding(tokens)))

    def logits(self, features: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        return F.linear(features, self.embedding.weight if self.head is None else self.head.weight)

    def shard_units(self) -> list[nn.Module]:
        return [*self.transformer.blocks, self]

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        batch = without_padding(batch)
        return next_token_loss(self(batch["tokens"][:, :-1]), batch), {}

    def evaluate(self, batch: Batch) -> Metrics:
        batch = without_padding(batch)
        return next_token_figures(self(batch["tokens"][:, :-1]), batch)

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The mean of what the last block makes of each token, which has seen those before it."""
        return masked_mean(self.transformer(self.embedding(tokens)), mask)

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
    ) -> Tensor:
        """(B, P + length) int64: the prompt (P,), then `length` tokens, by default a window of the data.

        A token is predicted from at most `context` tokens. When these are full, the latest half of them is kept and
        the rest forgotten: the positions start again at 0, as in training, and the cache is filled anew.
        """
        places = self._tokens(
            random, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, length=length, prompt=prompt, prompts=prompts, stop=stop, beam=beam,
            grammar=grammar,
        )  # fmt: skip
        return torch.stack(list(places), 1)

    @torch.inference_mode()
    def stream(self, random: RowRandom, *, length: int | None = None, **options: Any) -> Iterator[Tensor]:
        """See `samplers.generation.generate` for the options."""
        yield from self._tokens(random, length=length, **options)

    def _tokens(self, random: RowRandom, *, length: int | None, **options: Any) -> Iterator[Tensor]:
        length = self.context if length is None else length
        return generate(CachedPredictor(self), self.tokenizer, random, length=length, **options)


class CachedPredictor:
    """Next-token logits of growing sequences, each token read once: what is read stays in key-value caches."""

    def __init__(self, model: GPT):
        self.context, self.transformer = model.context, model.transformer
        self.embedding = model.embedding.weight
        self.head = (self.embedding if model.head is None else model.head.weight).t()  # (C, V)
        self.caches = model.transformer.new_caches()
        self.start: int | None = None  # where the window that the caches hold begins

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, V)."""
        now, context = tokens.shape[1], self.context
        if self.start is None:
            self.start = max(0, now - context)
        elif now - self.start > context:
            self.start = now - max(1, context // 2)
            for cache in self.caches:
                cache.clear()
        seen = self.start + self.caches[0].length
        if now - seen == 1 and self.transformer.can_step(tokens):
            x = self.embedding.index_select(0, tokens.select(1, seen))  # (B, C)
            return torch.mm(self.transformer.step(x, self.caches), self.head)
        # `forward`, not a call: where training is compiled, every new length would be compiled too.
        features = self.transformer.forward(F.embedding(tokens[:, seen:], self.embedding), self.caches)
        return torch.mm(features[:, -1], self.head)

    def select(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)
