"""Image GPT (Chen et al. 2020, "Generative pretraining from pixels"): a causal transformer over pixels in raster order.

`genai train model=image_gpt dataset=mnist`, `genai sample run=latest given=FOLDER keep=top_half temperature=0.9`
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.pixel_tokens import CodeTokens, PixelTokens
from genai_cli.nn.random import RowRandom
from genai_cli.nn.transformer import Transformer
from genai_cli.rules import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from genai_cli.samplers.decoding import draw_tokens
from genai_cli.samplers.keep import given_rows, kept_pixels


class ImageGPT(GenerativeModel):
    """p(tokens) of an image's pixels, left to right and top to bottom, from a start that may be the label.

    As in the paper, images may be learned at a low `resolution` (averaged to that many pixels a side) and with few
    `shades` of each colour (8 x 8 x 8 by default, all levels of grey): the likelihood is then of these images.
    Codes of a quantiser (`dataset=codes`) are learned as they are, and decoded to images.
    """

    modalities = ("image", "codes")
    monitor = "nll"
    figures = {"nll": "nats, exact, of images as they are learned", "bits_per_dim": "bits per dimension, exact"}
    figures |= {"bits_per_code": "bits per code, exact"}
    rules = {"width % heads == 0": "width must be divisible by heads"}
    tiny = {"width": 16, "depth": 2, "heads": 2, "resolution": 4, "shades": 4}

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 4,
        heads: PositiveInt = 4,
        dropout: Fraction = 0.0,
        resolution: PositiveInt | None = None,
        shades: PositiveInt | None = None,
        conditional: bool = False,
    ):
        super().__init__(spec)
        if conditional and not spec.classes:
            raise ValueError("model.conditional=true needs data with labels; take model.conditional=false")
        if spec.is_tokens and (shades or resolution):
            raise ValueError("model.shades and model.resolution are of pixels, and the data are codes: leave them out")
        self.pixels = CodeTokens(spec) if spec.is_tokens else PixelTokens(spec, shades=shades, resolution=resolution)
        self.conditional = conditional
        self.start = nn.Embedding(len(spec.classes) if conditional else 1, width)
        self.embedding = nn.Embedding(self.pixels.vocabulary_size, width)
        self.transformer = Transformer(
            context=self.pixels.length, width=width, depth=depth, heads=heads, positions="learned", dropout=dropout
        )
        self.head = nn.Linear(width, self.pixels.vocabulary_size, bias=False)
        for layer in (self.start, self.embedding, self.head):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, tokens: Tensor, start: Tensor) -> Tensor:
        """(B, T) int64 and the starts (B,) -> logits (B, T, V), at t those of token t from the tokens before it."""
        x = torch.cat([self.start(start).unsqueeze(1), self.embedding(tokens[:, :-1])], dim=1)
        return self.head(self.transformer(x))

    def shard_units(self) -> list[nn.Module]:
        return [*self.transformer.blocks, self]

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per pixel."""
        nll = self.nll(batch).mean()
        return nll / self.pixels.length, {"nll": nll.detach()}

    def nll(self, batch: Batch) -> Tensor:
        """-log p(image as it is learned) in nats, (B,)."""
        tokens = self.pixels.to_tokens(batch[self.spec.key])
        logits = self(tokens, batch["label"] if self.conditional else torch.zeros_like(tokens[:, 0])).float()
        return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").sum(1)

    def evaluate(self, batch: Batch) -> Metrics:
        nll = self.nll(batch)
        if self.spec.is_tokens:
            return {"nll": nll, "bits_per_code": nll / (self.pixels.length * math.log(2))}
        return {"nll": nll, "bits_per_dim": nll / (self.pixels.length * self.pixels.channels * math.log(2))}

    @torch.inference_mode()
    def sample(
        self,
        random: RowRandom,
        *,
        label: NonNegativeInt | None = None,
        temperature: PositiveFloat = 1.0,
        top_k: PositiveInt | None = None,
        top_p: Probability | None = None,
        given: Tensor | None = None,
        keep: Literal["top_half", "left_half"] = "top_half",
    ) -> Tensor:
        """Token by token, with cached keys and values. Of `given` images only what is not kept is drawn."""
        if not self.conditional and label is not None:
            raise ValueError(f"label={label} needs a model trained with model.conditional=true")
        start = torch.zeros(random.size, dtype=torch.long, device=random.device)
        if self.conditional:
            start = sample_labels(random, len(self.spec.classes), label)
        tokens = torch.zeros(random.size, self.pixels.length, dtype=torch.long, device=random.device)
        known = [False] * self.pixels.length
        if given is not None:
            known = kept_pixels(keep, self.pixels.height, self.pixels.width).flatten().tolist()
            tokens = self.pixels.to_tokens(given_rows(given, random))
        caches = self.transformer.new_caches()
        x = self.start(start)
        for t in range(self.pixels.length):
            features = self.transformer.forward(x.unsqueeze(1), caches)  # not a call: it is not to be compiled
            if not known[t]:
                logits = self.head(features[:, -1])  # (B, V)
                tokens[:, t] = draw_tokens(logits, random, temperature=temperature, top_k=top_k, top_p=top_p)
            x = self.embedding(tokens[:, t])
        return self.pixels.to_image(tokens)
