"""T5: an encoder-decoder that answers a text with a text (Raffel et al. 2020, arXiv:1910.10683).

`genai train model=t5 dataset=pairs`, then `genai sample run=latest prompt="genesis" num_samples=1 top_k=1`. Of pairs
the encoder reads the prompt, the decoder writes the response. Of plain text a window is cut anywhere, and the decoder
goes on from what the encoder has read: the prefix language model of section 3.2.1. With `model.objective=spans` parts
of it are hidden, and the decoder writes them (sections 3.1.4, 3.3.4): it fills in gaps, `prompt="To [MASK], or not"`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.encoder_decoder import EncoderDecoder
from genai_cli.nn.random import RowRandom
from genai_cli.nn.spans import SpanCorruption
from genai_cli.rules import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.generation import generate, lay_out
from genai_cli.samplers.infilling import Gaps

GAP = "[MASK]"


class T5(GenerativeModel):
    """p(response | prompt), a product over the response's tokens."""

    modalities = ("text", "music", "molecules")
    figures = {
        "nll": "nats per token of the response given the prompt (of a text: of a window's second half or hidden spans)",
        "exact": "share of responses that greedy decoding gives exactly, higher is better",
    }
    monitor = "nll"
    is_bound_to_window = True
    rules = {
        "width % heads == 0": "width must be divisible by heads",
        "positions != 'rotary' or width // heads % 2 == 0": "rotary positions need an even width / heads",
        "objective == 'spans' or (hidden_rate == 0.15 and mean_span == 3)": "hidden_rate, mean_span: objective=spans",
        "hidden_rate > 0": "hidden_rate must be above 0: what is not hidden is not learned",
    }
    tiny = {"width": 16, "depth": 1, "heads": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 3,
        heads: PositiveInt = 4,
        activation: Literal["gelu", "relu2", "swiglu"] = "gelu",
        positions: Literal["relative", "rotary"] = "relative",
        objective: Literal["prefix", "spans"] = "prefix",
        hidden_rate: Fraction = 0.15,
        mean_span: PositiveFloat = 3.0,
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        (self.context,) = spec.shape
        self.tokenizer = tokenizer_of(spec)
        self.spans = None
        if objective == "spans":
            if spec.modality != "text" or self.tokenizer.separator is not None or self.context < 2:
                raise ValueError("objective=spans hides parts of a plain text, which the data are not: take prefix")
            self.spans = SpanCorruption(
                self.context + 1, rate=hidden_rate, mean_span=mean_span, sentinel=spec.vocabulary_size
            )
        places = self.context + 1 if self.spans is None else self.spans.row_length
        num_sentinels = 0 if self.spans is None else self.spans.num_sentinels
        self.embedding = nn.Embedding(spec.vocabulary_size + num_sentinels, width)
        self.transformer = EncoderDecoder(
            places=places, width=width, depth=depth, heads=heads, activation=activation,
            positions=positions, dropout=dropout,
        )  # fmt: skip
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, cut: Tensor) -> Tensor:
        """(B, T + 1) int64 -> logits (B, T, V): at t those of the token after t, for t >= cut - 1, cut (B,) >= 1."""
        embedded = self.embedding(tokens)
        memory = self.transformer.encode(embedded, cut)
        return self.logits(self.transformer.decode(embedded[:, :-1], memory, cut))

    def logits(self, features: Tensor) -> Tensor:
        """(..., C) -> (..., V), by the embedding itself."""
        return F.linear(features, self.embedding.weight)

    def shard_units(self) -> list[nn.Module]:
        return [*self.transformer.encoder, *self.transformer.decoder, self]

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per token of each response, a mean over the batch. A text is cut anywhere, all places alike."""
        anywhere = 1 + batch.random.integers(self.context) if self.spans is None else None
        nll, exact = self._of_responses(*self._task(batch, anywhere))
        return nll.mean(), {"exact": exact.mean()}

    def evaluate(self, batch: Batch) -> Metrics:
        nll, exact = self._of_responses(*self._task(batch))
        return {"nll": nll, "exact": exact}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """The likeliest responses to prompts of the data, (B', T)."""
        tokens, _, cut = self._task(batch)
        prompts = [row[:stop].cpu() for row, stop in zip(tokens, cut.tolist(), strict=True)]
        responses = self.sample(batch.random, prompts=prompts, top_k=1)[:, : self.context]
        return {"responses": F.pad(responses, (0, self.context - responses.shape[1]), value=-1)}

    def _task(self, batch: Batch, cut: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of a prompt and its response (B, P), which of their targets count (B, P - 1), and the cut (B,).

        Of a plain text the cut is at `cut`, by default in the middle, or spans are hidden.
        """
        tokens, counts = batch["tokens"], batch["mask"]
        if self.spans is not None:
            starts, sizes = self.spans.draw(batch.random)
            rows, went_to = self.spans.rows(tokens, starts, sizes)
            counts = torch.ones_like(rows, dtype=torch.bool).scatter(1, went_to, F.pad(counts, (1, 0), value=True))
            return rows, counts[:, 1:], torch.full_like(rows[:, 0], self.spans.input_length)
        middle = torch.full_like(tokens[:, 0], (self.context + 1) // 2)
        return tokens, counts, self._cut(tokens, middle if cut is None else cut)

    def _cut(self, tokens: Tensor, otherwise: Tensor) -> Tensor:
        """(B,): where the response of each row begins; `otherwise` where its tokens have no separator."""
        if self.tokenizer.separator is None:
            return otherwise
        is_separator = tokens == self.tokenizer.separator
        return torch.where(is_separator.any(1), is_separator.int().argmax(1) + 1, otherwise).clamp(max=self.context)

    def _of_responses(self, tokens: Tensor, counts: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Nats per token of the response and whether each of its tokens is the likeliest, (B,) each.

        Where all are, after the true tokens before them, greedy decoding gives the whole response.
        """
        logits, targets = self(tokens, cut).float(), tokens[:, 1:]
        counts = counts & (torch.arange(targets.shape[1], device=cut.device) >= cut[:, None] - 1)  # (B, P - 1)
        nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        is_right = (logits.argmax(2) == targets) | ~counts
        return (nll * counts).sum(1) / counts.sum(1).clamp(min=1), is_right.all(1).float()

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
        """(B, P + length) int64: the prompt (P,), then `length` tokens, by default as many as a window has room for.

        With objective=spans: the prompt with its gaps filled in, in all with up to `length` tokens and as many as fill
        a window if there is no prompt; what is left of a row is NO_TOKEN.
        """
        if self.spans is not None:
            return self._fill_in(
                random, length=length, given=[prompt] if prompt is not None else prompts or [],
                temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
                stop=stop, beam=beam, grammar=grammar,
            )  # fmt: skip
        places = self.stream(
            random, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, length=length, prompt=prompt, prompts=prompts, stop=stop, beam=beam,
            grammar=grammar,
        )  # fmt: skip
        return torch.stack(list(places), 1)

    @torch.inference_mode()
    def stream(
        self, random: RowRandom, *, length: int | None = None, prompt: Tensor | None = None,
        prompts: Sequence[Tensor] | None = None, **options: Any,
    ) -> Iterator[Tensor]:  # fmt: skip
        """See `samplers.generation.generate` for the options."""
        if self.spans is not None:
            raise ValueError("objective=spans fills in gaps anywhere in a text: leave stream out")
        given = [prompt] if prompt is not None else list(prompts or [])
        longest = max(map(len, given), default=0)
        length = max(1, self.context - longest) if length is None else length
        if max(longest, 1) + length > self.context + 1:
            raise ValueError(
                f"a prompt of {longest} tokens and length={length} are more than the {self.context} of a window; "
                "give a shorter prompt, or train with a larger dataset.length"
            )
        tokens, cut = lay_out(given, random, start=self.tokenizer.start, length=0)
        predict = ResponsePredictor(self, tokens, cut)
        yield from generate(predict, self.tokenizer, random, length=length, prompt=prompt, prompts=prompts, **options)

    def read_prompt(self, text: str) -> Tensor:
        """With objective=spans, [MASK] stands for a gap of any length."""
        if self.spans is None:
            return super().read_prompt(text)
        parts = [self.tokenizer.encode(part) if part else torch.zeros(0, dtype=torch.int64) for part in text.split(GAP)]
        if not 1 < len(parts) <= self.spans.num_sentinels:
            raise ValueError(
                f"it has {len(parts) - 1} gaps, {GAP}; the run learned to fill in 1 to {self.spans.num_spans}"
            )
        sentinels = [torch.tensor([self.spans.sentinel + k]) for k in range(len(parts) - 1)]
        return torch.cat([parts[0], *(token for pair in zip(sentinels, parts[1:], strict=True) for token in pair)])

    def _fill_in(
        self, random: RowRandom, *, length: int | None, given: Sequence[Tensor], grammar: bool | None, **decoding: Any
    ) -> Tensor:
        """See `sample`. A sentinel names the next gap, and no other; the room left decides when it must come."""
        if grammar is not None:
            raise ValueError("grammar: where gaps end is ruled already; leave it out")
        is_free = not given
        sentinel, places = self.spans.sentinel, self.spans.row_length
        texts = given or [torch.tensor([self.tokenizer.start, sentinel])]
        longest = max(map(len, texts))
        length = self.context if length is None and is_free else length
        room = places - longest - 1 - self.spans.num_sentinels  # for what is drawn but sentinels
        if min(room, self.context) < (length or 1):
            raise ValueError(
                f"a prompt of {longest} tokens and length={length or 1} are more than a window of {self.context} has "
                "room for; give a shorter prompt, or train with a larger dataset.length"
            )
        total = (length or room) + max(int((text >= sentinel).sum()) for text in texts)
        gaps = Gaps(texts, random, sentinel=sentinel, num_tokens=self.embedding.num_embeddings, is_full=is_free)
        prompts = [torch.cat([text, torch.tensor([sentinel])]) for text in texts]
        tokens, known = lay_out(prompts, random, start=self.tokenizer.start, length=0)
        predict = ResponsePredictor(self, tokens, known - 1)
        columns = generate(predict, gaps, random, length=total, prompts=prompts, **decoding)
        filled = gaps.fill(torch.stack(list(columns), 1), width=longest + total - 2)
        return filled[:, 1:].to(random.device) if is_free else filled.to(random.device)


class ResponsePredictor:
    """Next-token logits of growing responses to prompts, which are read once; so is each token that is drawn."""

    def __init__(self, model: T5, prompts: Tensor, cut: Tensor):
        """`prompts` (B, P), of which row i holds cut[i] tokens."""
        self.model, self.cut = model, cut
        self.memory = model.transformer.encode(model.embedding(prompts), cut)
        self.cache = model.transformer.new_cache()

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, V)."""
        fresh = self.model.embedding(tokens[:, self.cache.length :])
        features = self.model.transformer.decode(fresh, self.memory, self.cut, self.cache)
        return self.model.logits(features[:, -1])

    def select(self, rows: Tensor) -> None:
        self.memory, self.cut = self.memory[rows], self.cut[rows]
        self.cache.select(rows)
