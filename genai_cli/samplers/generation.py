"""Sequences from a model of the next token: drawn place by place, or searched for with a beam.

Prompts may differ in length: the places that a prompt fills are given, the others drawn, in one pass over all rows.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from genai_cli.nn.random import RowRandom
from genai_cli.samplers.decoding import draw_tokens, penalise_repetition

NO_TOKEN = -1  # fills a row that has come to its end, where the vocabulary has no token for that


class Predictor(Protocol):
    """A model's state while it reads B sequences."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of the token after `tokens` (B, T), which begin with those of the last call."""
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with the sequences `rows` (B',) in place of all."""
        ...


class Grammar(Protocol):
    """See `data/tokenizers.py`."""

    is_default: bool
    may_follow: Tensor | None

    def advance(self, tokens: Tensor) -> None: ...

    def check_prompt(self, prompt: Tensor, room: int) -> None: ...

    def allowed(self, remaining: int) -> Tensor: ...

    def select(self, rows: Tensor) -> None: ...


class Tokenizer(Protocol):
    """What is asked of a tokenizer here; see `data/tokenizers.py`."""

    start: int
    end: int | None

    def encode(self, text: str) -> Tensor: ...

    def decode(self, tokens: Tensor) -> Any: ...

    def grammar(self, rows: int) -> Grammar | None: ...


def generate(
    predict: Predictor, tokenizer: Tokenizer, random: RowRandom, *, length: int, prompt: Tensor | None = None,
    prompts: Sequence[Tensor] | None = None, stop: str | None = None, beam: int | None = None,
    grammar: bool | None = None, **decoding: Any,
) -> Iterator[Tensor]:  # fmt: skip
    """The places (B,) of `random.size` sequences, one after the other: their prompts, then `length` tokens.

    Row i begins with prompt i mod their number, and all rows end `length` places after the longest prompt. A row
    without one begins as if after `tokenizer.start`, which is not returned. A row ends early with `tokenizer.end`, or
    where the text after its prompt contains `stop`. `grammar`: whether only what can be read back is drawn; null: in
    music. `beam`: search for the likeliest sequences instead of drawing. `decoding`: options of `draw_sequences`.
    Raises ValueError for options that exclude each other.
    """
    if prompt is not None and prompts is not None:
        raise ValueError("prompt and prompts exclude each other: give one text, or a list that rows take in turn")
    given = [prompt] if prompt is not None else list(prompts or [])
    rules = chosen_grammar(tokenizer, random.size, grammar)
    tokens, known = lay_out(given, random, start=tokenizer.start, length=length)
    for row in given if rules is not None else []:
        rules.check_prompt(row, tokens.shape[1] - len(row))
    first = min((len(row) or 1 for row in given), default=1)
    num_dropped = 0 if any(map(len, given)) else 1
    if beam is not None:
        check_beam(stop, decoding)
        found = search_sequences(predict, tokens, known, first=first, beam=beam, grammar=rules, end=tokenizer.end)
        columns: Iterator[Tensor] = iter(found.unbind(1))
    else:
        finished = None if stop is None else Stop(tokenizer, stop, known)
        columns = draw_sequences(
            predict, tokens, known, random, first=first, grammar=rules, end=tokenizer.end, is_finished=finished,
            **decoding,
        )  # fmt: skip
    return islice(columns, num_dropped, None)


def chosen_grammar(tokenizer: Tokenizer, rows: int, grammar: bool | None) -> Grammar | None:
    """The tokenizer's rules for `rows` sequences, where they are wanted (true), or usual and not unwanted (null)."""
    rules = tokenizer.grammar(rows) if grammar is not False else None
    if grammar and rules is None:
        raise ValueError("grammar=true: any of these tokens may follow any other; leave grammar out")
    return rules if grammar or (rules is not None and rules.is_default) else None


def lay_out(prompts: Sequence[Tensor], random: RowRandom, *, start: int, length: int) -> tuple[Tensor, Tensor]:
    """Room for the sequences, (B, T) int64, the prompts in place; and how much of each row is given, (B,)."""
    given = [prompt.tolist() or [start] for prompt in prompts] or [[start]]
    rows = [given[i % len(given)] for i in random.index]
    tokens = torch.full((random.size, max(map(len, given)) + length), start, device=random.device)
    for row, prompt in zip(tokens, rows, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    return tokens, torch.tensor([len(prompt) for prompt in rows], device=random.device)


def check_beam(stop: str | None, decoding: dict[str, Any]) -> None:
    """Refuse what a search would ignore."""
    defaults = {"temperature": 1.0, "repetition_penalty": 1.0}
    ignored = [key for key, value in decoding.items() if value is not None and value != defaults.get(key)]
    ignored += ["stop"] if stop is not None else []
    if ignored:
        raise ValueError(f"beam searches and draws nothing: it takes no {', '.join(ignored)}")


class Stop:
    """Whether the text of each row, after what was given, contains `stop`."""

    def __init__(self, tokenizer: Tokenizer, stop: str, known: Tensor):
        if not stop or tokenizer.end is not None:
            raise ValueError(f"stop={stop!r}: give some text, for a model of text")
        try:
            tokenizer.encode(stop)
        except ValueError as error:
            raise ValueError(f"stop={stop!r} never comes: {error}; a line break is typed $'\\n'") from error
        self.tokenizer, self.stop, self.known = tokenizer, stop, known.tolist()
        self.reach = len(stop.encode())  # tokens that the text can be spread over: none is shorter than a byte

    def __call__(self, tokens: Tensor) -> Tensor:
        now = tokens.shape[1]
        tails = [row[max(known, now - self.reach) :] for row, known in zip(tokens, self.known, strict=True)]
        texts = [self.tokenizer.decode(tail[tail >= 0]) for tail in tails]
        return torch.tensor([self.stop in text for text in texts], device=tokens.device)


def draw_sequences(
    predict: Predictor, tokens: Tensor, known: Tensor, random: RowRandom, *, first: int, grammar: Grammar | None = None,
    end: int | None = None, is_finished: Callable[[Tensor], Tensor] | None = None, repetition_penalty: float = 1.0,
    **decoding: Any,
) -> Iterator[Tensor]:  # fmt: skip
    """Draw what is not given of `tokens` (B, T), in place, from place `first` on; yield each place (B,) once settled.

    Row i is given up to known[i] >= first > 0. A row that has drawn `end`, or of which `is_finished`, given (B, now),
    says so, is over: it is filled with `end`, or NO_TOKEN. `decoding`: the options of `draw_tokens`.
    """
    is_over = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    may_end = end is not None or is_finished is not None
    filler = NO_TOKEN if end is None else end
    last_given = int(known.max())
    for place in range(first):
        if grammar is not None:
            grammar.advance(tokens[:, place])
        yield tokens[:, place]
    for now in range(first, tokens.shape[1]):
        if may_end and is_over.all():
            tokens[:, now] = filler
            yield tokens[:, now]
            continue
        seen = tokens.narrow(1, 0, now)
        logits = predict(seen.clamp(min=0) if may_end else seen)  # (B, V)
        if repetition_penalty != 1.0:
            logits = penalise_repetition(logits, seen, repetition_penalty)
        if grammar is not None:
            logits = logits.masked_fill(~grammar.allowed(tokens.shape[1] - now), -torch.inf)
        drawn = draw_tokens(logits, random, **decoding)
        if may_end:
            drawn = drawn.masked_fill(is_over, filler)
        if now < last_given:
            drawn = torch.where(now < known, tokens[:, now], drawn)
        tokens.select(1, now).copy_(drawn)
        if end is not None:
            is_over |= (now >= known) & (drawn == end)
        if is_finished is not None:
            is_over |= (now >= known) & is_finished(tokens[:, : now + 1])
        if grammar is not None:
            grammar.advance(drawn)
        yield drawn


def search_sequences(
    predict: Predictor, tokens: Tensor, known: Tensor, *, first: int, beam: int, grammar: Grammar | None = None,
    end: int | None = None,
) -> Tensor:  # fmt: skip
    """The likeliest sequences (B, T) that a beam search finds: at each place, the best `beam` of each row are kept.

    `tokens`, `known` and `first` as in `draw_sequences`. The score of a sequence is the log probability of what is not
    given, up to its `end`. With a beam of 1 this is greedy decoding; wider than all sequences, it finds the likeliest.
    """
    batch, total = tokens.shape
    rows = torch.arange(batch, device=tokens.device).repeat_interleave(beam)  # (B K,): the row of each candidate
    logits = predict(tokens[:, :first])[rows]  # (B K, V): what all candidates have in common is read once
    predict.select(rows)
    if grammar is not None:
        for place in range(first):
            grammar.advance(tokens[:, place])
        grammar.select(rows)
    held, is_given_until = tokens[rows], known[rows]
    scores = torch.full((batch, beam), -torch.inf, dtype=torch.float64, device=tokens.device)
    scores[:, 0] = 0  # the candidates are still the same
    is_over = torch.zeros_like(rows, dtype=torch.bool)
    for now in range(first, total):
        if now > first:
            logits = predict(held[:, :now])
        if grammar is not None:
            logits = logits.masked_fill(~grammar.allowed(total - now), -torch.inf)
        log_p = logits.double().log_softmax(-1)  # (B K, V)
        is_forced = (now < is_given_until) | is_over
        forced = torch.where(is_over, torch.full_like(rows, end or 0), held[:, now])
        only = torch.full_like(log_p, -torch.inf).scatter(1, forced[:, None], 0.0)
        log_p = torch.where(is_forced[:, None], only, log_p)
        best = (scores[:, :, None] + log_p.unflatten(0, (batch, beam))).flatten(1).topk(beam, sorted=True)
        scores = best.values  # (B, K)
        parent = best.indices // log_p.shape[1] + torch.arange(batch, device=rows.device)[:, None] * beam
        parent, token = parent.flatten(), (best.indices % log_p.shape[1]).flatten()
        held, is_over = held[parent], is_over[parent]
        held[:, now] = token
        if end is not None:
            is_over |= (token == end) & (now >= is_given_until)
        predict.select(parent)
        if grammar is not None:
            grammar.select(parent)
            grammar.advance(token)
    return held.unflatten(0, (batch, beam))[:, 0]
