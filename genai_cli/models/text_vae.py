"""A variational autoencoder of sentences (Bowman et al. 2016, arXiv:1511.06349).

`genai train model=text_vae dataset=shakespeare`. An LSTM reads a window into one Gaussian code, another writes it from
the code. That writes well without any code, and then the code says nothing: against it the KL term's weight rises from
zero (`beta_warmup`), and tokens that the decoder has written are hidden from it (`word_dropout`).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.gaussians import (
    kl_per_coordinate,
    reparameterise,
    risen,
    with_free_bits,
)
from genai_cli.nn.next_token import IGNORED, masked_targets
from genai_cli.nn.random import RowRandom, SampleRandom
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.generation import generate

STOPS = 8  # of an interpolation


class TextVAE(GenerativeModel):
    """z ~ N(0, I) decoded to p(x | z), a product over tokens; q(z | x) a Gaussian made of the encoder's last state."""

    modalities = ("text", "music", "molecules")
    figures = {
        "bound": "nats per token, an upper bound on -log p(x), with one draw of the code",
        "reconstruction": "nats per token given the code, the bound's first term",
        "kl": "nats per window that the code says, the bound's second term",
    }
    monitor = "bound"
    tiny = {"width": 8, "latent_dim": 3, "beta_warmup": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 32,
        width: PositiveInt = 256,
        word_dropout: Fraction = 0.4,
        beta_warmup: NonNegativeInt = 2000,
        free_bits: NonNegativeFloat = 0.0,
    ):
        super().__init__(spec)
        (self.context,) = spec.shape
        self.latent_dim, self.word_dropout = latent_dim, word_dropout
        self.beta_warmup, self.free_bits = beta_warmup, free_bits
        self.tokenizer = tokenizer_of(spec)
        self.hidden = spec.vocabulary_size  # stands for a token that the decoder may not see
        self.embedding = nn.Embedding(spec.vocabulary_size + 1, width)
        self.encoder = nn.LSTM(width, width, batch_first=True)
        self.code = nn.Linear(width, 2 * latent_dim)
        self.start = nn.Linear(latent_dim, 2 * width)
        self.decoder = nn.LSTM(width + latent_dim, width, batch_first=True)  # the code is an input at each token, too
        self.head = nn.Linear(width, spec.vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def train_step(self, step: Step) -> None:
        share = risen(step.number, self.beta_warmup)
        step.minimize("model", partial(self.loss, beta=share))

    def loss(self, batch: Batch, *, beta: float = 1.0) -> tuple[Tensor, Metrics]:
        """The bound in nats per window, its KL term weighted by `beta`."""
        reconstruction, kl = self.bound(batch, word_dropout=self.word_dropout)
        penalty = with_free_bits(kl, self.free_bits) if self.free_bits else kl.sum(1).mean()
        metrics = {"reconstruction": reconstruction.mean(), "kl": kl.sum(1).mean()}
        return reconstruction.mean() + beta * penalty, metrics

    def bound(self, batch: Batch, *, word_dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """The terms of the negative bound in nats, with one draw of the code: (B,) and (B, latent_dim)."""
        tokens = batch["tokens"]
        mu, logvar = self.posterior(tokens)
        z = reparameterise(mu, logvar, batch.random.normal(self.latent_dim))
        seen = tokens[:, :-1]
        if word_dropout:
            is_hidden = batch.random.uniform(self.context)[:, : seen.shape[1]] < word_dropout
            is_hidden[:, 0] = False  # what comes before the window is given, as to any model of the next token
            seen = seen.masked_fill(is_hidden, self.hidden)
        logits, _ = self.read(seen, z, self.first_state(z))
        nats = F.cross_entropy(
            logits.float().transpose(1, 2), masked_targets(batch), ignore_index=IGNORED, reduction="none"
        )
        return nats.sum(1), kl_per_coordinate(mu, logvar)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T + 1) tokens, the first of them given, to mean and log variance of q(z | x), (B, latent_dim) each."""
        _, (state, _) = self.encoder(self.embedding(x[:, 1:]))
        mu, logvar = self.code(state[-1]).float().chunk(2, 1)
        return mu, logvar

    def first_state(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(B, latent_dim) to what the decoder remembers at first, (1, B, C) each."""
        state, cell = self.start(z)[None].chunk(2, 2)
        return state.tanh().contiguous(), cell.contiguous()

    def read(self, tokens: Tensor, z: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens (B, T) that follow those of `state` to logits (B, T, V) of the next, and the state after them."""
        code = z[:, None].expand(-1, tokens.shape[1], -1)
        features, state = self.decoder(torch.cat([self.embedding(tokens), code], 2), state)
        return self.head(features), state

    def evaluate(self, batch: Batch) -> Metrics:
        reconstruction, kl = self.bound(batch)
        weight = batch["mask"].sum(1)
        kl, length = kl.sum(1), weight.clamp(min=1)
        terms = {"bound": (reconstruction + kl) / length, "reconstruction": reconstruction / length, "kl": kl}
        return {**terms, "weight": weight.to(kl.dtype)}

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def encode(self, x: Tensor) -> Tensor:
        """(B, T + 1) tokens to the mean of the code, (B, latent_dim)."""
        return self.posterior(x)[0]

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent_dim) to (B, T): at each place the likeliest token."""
        rows = SampleRandom(0, range(len(latent)), device=latent.device)  # nothing is drawn from it
        places = generate(CodePredictor(self, latent), self.tokenizer, rows, length=self.context, top_k=1)
        return torch.stack(list(places), 1)

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
        grammar: bool | None = None,
    ) -> Tensor:
        """(B, P + length) int64: for codes from the prior, drawn from p(x | z); top_k=1 takes the likeliest tokens."""
        places = self.stream(
            random, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, length=length, prompt=prompt, prompts=prompts, stop=stop,
            grammar=grammar,
        )  # fmt: skip
        return torch.stack(list(places), 1)

    @torch.inference_mode()
    def stream(self, random: RowRandom, *, length: int | None = None, **options: Any) -> Iterator[Tensor]:
        """See `samplers.generation.generate` for the options."""
        length = self.context if length is None else length
        predict = CodePredictor(self, self.draw_latent(random))
        yield from generate(predict, self.tokenizer, random, length=length, **options)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Windows, each above its reconstruction; and the way from the code of the first to that of the second."""
        tokens = batch["tokens"]
        latent = self.encode(tokens)
        way = torch.linspace(0, 1, STOPS, device=latent.device)[:, None]
        return {
            "reconstruction": alternate_rows(tokens[:, 1:], self.decode(latent)),
            "interpolation": self.decode(torch.lerp(latent[:1], latent[1:2], way)),
        }


class CodePredictor:
    """Next-token logits of growing sequences of given codes, each token read once."""

    def __init__(self, model: TextVAE, z: Tensor):
        self.model, self.z = model, z
        self.state = model.first_state(z)
        self.num_read = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, V)."""
        logits, self.state = self.model.read(tokens[:, self.num_read :], self.z, self.state)
        self.num_read = tokens.shape[1]
        return logits[:, -1]

    def select(self, rows: Tensor) -> None:
        self.z, self.state = self.z[rows], (self.state[0][:, rows], self.state[1][:, rows])
