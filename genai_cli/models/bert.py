"""BERT: a transformer that sees both sides and fills in hidden tokens (Devlin et al. 2019, arXiv:1810.04805).

`genai train model=bert dataset=shakespeare`, then `genai sample run=latest 'prompt="To [MASK:2] or not"'`. It
generates by filling in what is all hidden, a few places at a time (Wang & Cho 2019, arXiv:1902.04094). Of the paper's
two objectives this is the masked language model; the next-sentence task is left out (Liu et al. 2019).
"""

import re
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.next_token import masked_mean
from genai_cli.nn.random import RowRandom
from genai_cli.nn.transformer import Transformer
from genai_cli.rules import Fraction, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.chains import Chain
from genai_cli.samplers.generation import chosen_grammar, generate
from genai_cli.samplers.unmasking import NextPlace, unmask

HIDDEN, RANDOM = 0.8, 0.1  # of the chosen tokens: hidden, replaced by any token; the rest stays (Section 3.1)
MASK = re.compile(r"\[MASK(?::(\d+))?\]")


class BERT(GenerativeModel):
    """p(hidden tokens | the others), each place by itself."""

    modalities = ("text", "music", "molecules", "codes")
    figures = {
        "masked_nll": "nats per chosen token, given what is not hidden",
        "accuracy": "share of the chosen tokens that are guessed right, higher is better",
    }
    monitor = "masked_nll"
    rules = {
        "width % heads == 0": "width must be divisible by heads",
        "positions != 'rotary' or width // heads % 2 == 0": "rotary positions need an even width / heads",
        "mask_rate > 0": "mask_rate must be above 0: what is not hidden is not learned",
    }
    tiny = {"width": 16, "depth": 2, "heads": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 4,
        heads: PositiveInt = 4,
        activation: Literal["gelu", "relu2", "swiglu"] = "gelu",
        positions: Literal["rotary", "learned"] = "learned",
        mask_rate: Probability = 0.15,
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        (self.context,) = spec.shape
        self.tokenizer = tokenizer_of(spec)
        self.mask_token = spec.vocabulary_size  # a token of its own, after the others
        self.num_chosen = max(1, round(mask_rate * self.context))  # of each window: as many in each
        self.embedding = nn.Embedding(spec.vocabulary_size + 1, width)
        self.transformer = Transformer(
            context=self.context, width=width, depth=depth, heads=heads, activation=activation, positions=positions,
            dropout=dropout, is_causal=False,
        )  # fmt: skip
        self.bias = nn.Parameter(torch.zeros(spec.vocabulary_size))
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64, some of them hidden -> logits (B, T, V) of each place."""
        features = self.transformer(self.embedding(tokens))
        return F.linear(features, self.embedding.weight[: self.mask_token], self.bias)

    def shard_units(self) -> list[nn.Module]:
        return [*self.transformer.blocks, self]

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per chosen token."""
        nll, is_right, counts = self.masked_nll(batch)
        total = counts.sum().clamp(min=1)
        return (nll * counts).sum() / total, {"accuracy": (is_right * counts).sum() / total}

    def masked_nll(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """-log p of the chosen tokens and whether the likeliest is right, (B, K), and which of them count, (B, K)."""
        tokens, is_real = self.window(batch)
        chosen, inputs = self.hide(tokens, batch.random)
        logits = self(inputs).float().gather(1, chosen[:, :, None].expand(-1, -1, self.mask_token))  # (B, K, V)
        targets = tokens.gather(1, chosen)
        nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return nll, (logits.argmax(-1) == targets).float(), is_real.gather(1, chosen).float()

    def window(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The T tokens after the first, and which of them are data. Where sequences end, what fills them up is, too."""
        tokens, is_real = batch["tokens"][:, 1:], batch["mask"]
        return tokens, is_real if self.tokenizer.end is None else torch.ones_like(is_real)

    def hide(self, tokens: Tensor, random: RowRandom) -> tuple[Tensor, Tensor]:
        """The chosen places (B, K) of `tokens` (B, T), and the tokens with these hidden, replaced or left: 80/10/10."""
        chosen = random.uniform(tokens.shape[1]).topk(self.num_chosen, dim=1).indices
        fate = random.uniform(self.num_chosen)  # (B, K)
        substitutes = random.integers(self.mask_token, self.num_chosen)
        kept = tokens.gather(1, chosen)
        seen = torch.where(fate < HIDDEN + RANDOM, substitutes, kept).masked_fill(fate < HIDDEN, self.mask_token)
        return chosen, tokens.scatter(1, chosen, seen)

    def evaluate(self, batch: Batch) -> Metrics:
        """Nats per chosen token and how many of them are guessed, of each window. No likelihood of the window."""
        nll, is_right, counts = self.masked_nll(batch)
        total = counts.sum(1).clamp(min=1)
        return {
            "masked_nll": (nll * counts).sum(1) / total,
            "accuracy": (is_right * counts).sum(1) / total,
            "weight": counts.sum(1),
        }

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The mean of what the last block makes of each token, which has seen all others."""
        return masked_mean(self.transformer(self.embedding(tokens)), mask)

    def read_prompt(self, text: str) -> Tensor:
        """A text in which [MASK] stands for a hidden token and [MASK:n] for n of them; music: paths of MIDI files."""
        parts, position = [], 0
        for match in MASK.finditer(text):
            parts.append(self._encode(text[position : match.start()]))
            parts.append(torch.full((int(match[1] or 1),), self.mask_token))
            position = match.end()
        parts.append(self._encode(text[position:]))
        return torch.cat(parts)

    def _encode(self, text: str) -> Tensor:
        if not text:
            return torch.zeros(0, dtype=torch.int64)
        if self.spec.modality == "music":
            return self.tokenizer.prompt(text.strip())[1:]  # without what stands before a piece
        return self.tokenizer.encode(text)

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        steps: PositiveInt | None = None,
        order: Literal["random", "confidence"] = "random",
        temperature: PositiveFloat = 1.0,
        top_k: PositiveInt | None = None,
        prompt: Tensor | None = None,
        grammar: bool | None = None,
    ) -> Tensor:
        """(B, T) int64: all hidden tokens filled in, by default one a step. For a prompt see `read_prompt`.

        `grammar`: whether only what can be read back is drawn; null: in music. Molecules are then drawn from left to
        right, for whether what is filled in of one can be completed takes a search to tell.
        """
        if prompt is None:
            prompt = torch.full((self.context,), self.mask_token)
        if not 0 < len(prompt) <= self.context:
            raise ValueError(f"prompt has {len(prompt)} tokens; between 1 and {self.context} fit")
        is_hidden = prompt == self.mask_token  # (P,)
        if not is_hidden.any():
            raise ValueError(
                "prompt hides nothing: write [MASK], or [MASK:n] for n tokens, where it is to be filled in"
            )
        rules = chosen_grammar(self.tokenizer, random.size, grammar)
        if rules is not None and rules.may_follow is None:
            if steps is not None or order != "random":
                raise ValueError("grammar=true draws one token after the other: it takes no steps and no order")
            return self._left_to_right(random, prompt, is_hidden, temperature=temperature, top_k=top_k)
        given = (~is_hidden).nonzero()
        predict = partial(self._logits_within, num_inner=int(given.max()) if len(given) else 0)
        return unmask(
            predict, prompt.to(random.device).repeat(random.size, 1), random, mask_token=self.mask_token,
            steps=steps or len(prompt), order=order, temperature=temperature, top_k=top_k,
            chain=Chain(rules.may_follow.to(random.device)) if rules is not None else None, start=self.tokenizer.start,
        )  # fmt: skip

    def _logits_within(self, tokens: Tensor, *, num_inner: int) -> Tensor:
        """Logits (B, T, V), by which no sequence ends in the first `num_inner` places: what is given comes after."""
        logits = self(tokens)
        if self.tokenizer.end is not None:
            logits[:, :num_inner, self.tokenizer.end] = -torch.inf
        return logits

    def _left_to_right(self, random: RowRandom, prompt: Tensor, is_hidden: Tensor, **decoding: float | None) -> Tensor:
        """(B, P): by the grammar, the next token always."""
        num_given = int((~is_hidden).sum())
        if is_hidden[:num_given].any():
            raise ValueError("grammar=true draws from left to right: write [MASK:n] at the end of the prompt only")
        begun = torch.cat([torch.tensor([self.tokenizer.start]), prompt[:num_given]])
        predict = NextPlace(
            lambda tokens: F.pad(self(tokens[:, 1:]), (0, 0, 1, 0)), places=1 + len(prompt), mask_token=self.mask_token
        )
        length = len(prompt) - num_given
        places = generate(predict, self.tokenizer, random, length=length, prompt=begun, grammar=True, **decoding)
        return torch.stack(list(places), 1)[:, 1:]
