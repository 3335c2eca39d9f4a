"""Masked diffusion of text (Sahoo et al. 2024, MDLM, arXiv:2406.07524): tokens are hidden, and guessed in any order.

`genai train model=mdlm dataset=shakespeare`, then `genai sample run=latest steps=64 prompt="ROMEO:"`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import tokenizer_of
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.random import RowRandom
from genai_cli.nn.transformer import Transformer
from genai_cli.rules import Fraction, PositiveFloat, PositiveInt
from genai_cli.samplers.chains import Chain
from genai_cli.samplers.generation import chosen_grammar, generate
from genai_cli.samplers.unmasking import NextPlace, draw_places, pin

EVALUATED_TIMES = 8  # of each held-out window


class MDLM(GenerativeModel):
    """A transformer that fills in hidden tokens: diffusion whose noise is a mask, with alpha_t = 1 - t.

    At time t each token is hidden with probability t. The bound on -ln p is E_t 1 / t times the nats of the hidden
    tokens (Eq. 10): that of a mean over all orders of guessing. As in `gpt`, a window's first token is given, and the
    T after it are predicted. The network needs no time: how much is hidden it sees (Sec. 3.2).
    """

    modalities = ("text", "music", "molecules", "codes")
    figures = {"bound": "nats per token, upper bound on -log p(x)"}
    monitor = "bound"
    rules = {
        "width % heads == 0": "width must be divisible by heads",
        "width // heads % 2 == 0": "rotary positions need an even width / heads",
    }
    tiny = {"width": 16, "depth": 2, "heads": 2}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 4,
        heads: PositiveInt = 4,
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        (self.context,) = spec.shape  # T
        self.hidden = spec.vocabulary_size  # the token that stands for any
        self.tokenizer = tokenizer_of(spec)
        self.has_end = self.tokenizer.end is not None  # sequences of their own, not windows of a stream
        self.embedding = nn.Embedding(self.hidden + 1, width)
        self.transformer = Transformer(
            context=self.context + 1, width=width, depth=depth, heads=heads, dropout=dropout, is_causal=False
        )
        self.head = nn.Linear(width, self.hidden)  # never predicts that something is hidden
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats a token that counts: an unbiased estimate of the bound, at one time for each window."""
        t = 1 - batch.random.uniform()  # (B,), in (0, 1]
        nats, weight = self._nats(batch, t), self._counts(batch).sum(1)
        return (nats / weight.clamp(min=1)).mean(), {}

    def evaluate(self, batch: Batch) -> Metrics:
        """The bound in nats a token at times spread evenly over (0, 1], and the tokens it is the mean of (`weight`)."""
        offset = batch.random.uniform()  # (B,)
        nats = sum(self._nats(batch, (k + 1 - offset) / EVALUATED_TIMES) for k in range(EVALUATED_TIMES))
        weight = self._counts(batch).sum(1)
        return {"bound": nats / EVALUATED_TIMES / weight.clamp(min=1), "weight": weight.to(nats.dtype)}

    @torch.no_grad()
    def sample(
        self,
        random: RowRandom,
        *,
        steps: PositiveInt | None = None,
        temperature: PositiveFloat = 1.0,
        top_k: PositiveInt | None = None,
        prompt: Tensor | None = None,
        grammar: bool | None = None,
    ) -> Tensor:
        """(B, T) int64: a window that begins with `prompt` (P,), or as if after a line break, which is not returned.

        In `steps`, by default T, time falls from 1 to 0; between t and s each hidden token is shown with probability
        (t - s) / t, as the network draws it (Eq. 7). Once shown, it stays. `grammar`: whether only what can be read
        back is drawn; null: in music. Molecules are then drawn from left to right, for whether what is shown of one
        can be completed takes a search to tell.
        """
        rules = chosen_grammar(self.tokenizer, random.size, grammar)
        if rules is not None and rules.may_follow is None:
            return self._left_to_right(random, steps, prompt, temperature=temperature, top_k=top_k)
        chain = Chain(rules.may_follow.to(random.device)) if rules is not None else None
        tokens = self._all_hidden(random, prompt)
        steps = steps or self.context
        for step in range(steps):
            is_hidden = tokens == self.hidden  # (B, 1 + T)
            is_shown = is_hidden & (random.uniform(tokens.shape[1]) < 1 / (steps - step))  # t = 1 - step / steps
            logits = pin(self._logits(tokens), tokens, is_hidden)[:, 1:]
            drawn, _ = draw_places(
                logits, random, temperature=temperature, top_k=top_k, chain=chain, before=tokens[:, 0]
            )
            tokens = torch.where(is_shown, F.pad(drawn, (1, 0)), tokens)
        return tokens[:, 1:]

    def _left_to_right(
        self, random: RowRandom, steps: int | None, prompt: Tensor | None, **decoding: float | None
    ) -> Tensor:
        """(B, T): by the grammar, the next token always."""
        if steps is not None:
            raise ValueError(f"grammar=true draws one token after the other: it takes no steps={steps}")
        self._all_hidden(random, prompt)  # checks the prompt
        predict = NextPlace(self._logits, places=1 + self.context, mask_token=self.hidden)
        length = self.context if prompt is None else 1 + self.context - len(prompt)
        places = generate(predict, self.tokenizer, random, length=length, prompt=prompt, grammar=True, **decoding)
        return torch.stack(list(places), 1)[:, -self.context :]

    def _nats(self, batch: Batch, t: Tensor) -> Tensor:
        """(B,) the nats of the tokens that are hidden at times `t` (B,) and count, over t."""
        tokens, counts = batch["tokens"], self._counts(batch)  # (B, 1 + T), (B, T)
        is_hidden = (batch.random.uniform(self.context)[:, : counts.shape[1]] < t[:, None]) & counts
        seen = torch.cat([tokens[:, :1], tokens[:, 1:].masked_fill(is_hidden, self.hidden)], 1)
        nats = F.cross_entropy(self._logits(seen)[:, 1:].transpose(1, 2), tokens[:, 1:], reduction="none")  # (B, T)
        return (nats * is_hidden).sum(1) / t

    def _counts(self, batch: Batch) -> Tensor:
        """(B, T) bool: the targets that are data. Where sequences end, what fills the window after them is, too."""
        return torch.ones_like(batch["mask"]) if self.has_end else batch["mask"]

    def _logits(self, tokens: Tensor) -> Tensor:
        """(B, 1 + T) with hidden ones to (B, 1 + T, V)."""
        return self.head(self.transformer(self.embedding(tokens))).float()

    def _all_hidden(self, random: RowRandom, prompt: Tensor | None) -> Tensor:
        """(B, 1 + T): what stands before a window, the prompt, and nothing that is known after it.

        Where sequences have an end, a prompt begins with what stands before it, which may ask for a property.
        """
        known = [] if prompt is None else prompt.tolist()
        known = known if self.has_end and known else [self.tokenizer.start, *known]
        if len(known) > self.context:
            raise ValueError(f"a prompt of {len(known) - 1} tokens leaves nothing of the {self.context} of a window")
        tokens = torch.full((random.size, 1 + self.context), self.hidden, device=random.device)
        tokens[:, : len(known)] = torch.tensor(known, device=random.device)
        return tokens
