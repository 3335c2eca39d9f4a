"""Vector-quantised autoencoder (van den Oord et al. 2017, arXiv:1711.00937). `genai train model=vqvae dataset=mnist`

An image becomes a grid of vectors, each replaced by the nearest of `num_codes` (`nn/quantize.py`), and is decoded from
these. A transformer learns beside it how codes follow each other, so that one run also generates: draw codes, decode.
With a discriminator on patches it is VQGAN (Esser et al. 2021, arXiv:2012.09841; preset `vqgan`).
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.adversarial import discriminator_loss, nonsaturating
from genai_cli.nn.code_prior import CodePrior
from genai_cli.nn.conv import halving
from genai_cli.nn.perceptual import ImageClassifier
from genai_cli.nn.quantize import FiniteScalarQuantizer, Quantized, VectorQuantizer, perplexities
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import from_unit, to_unit
from genai_cli.nn.residual import MapDecoder, MapEncoder
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

# 256, 1024 and 4096 as in Table 1 of Mentzer et al. 2023 (arXiv:2309.15505).
FSQ_LEVELS = {64: (8, 8), 256: (8, 6, 5), 512: (8, 8, 8), 1024: (8, 5, 5, 5), 4096: (7, 5, 5, 5, 5)}


class VQVAE(GenerativeModel):
    """Convolutions that halve the sides `halvings` times, a quantiser, convolutions back, and a prior over the codes.

    `quantizer=ema` learns `residual` codebooks of `num_codes` vectors by moving averages; `fsq` rounds two to five
    numbers to a few levels each, about `num_codes` combinations. Errors are sums over pixels in [0, 1]; `perceptual`
    weighs a distance of features beside them, of a classifier that learns the labels of the data.
    """

    modalities = ("image",)
    monitor = "squared_error"
    tiny = {"width": 4, "num_codes": 4, "prior_width": 8, "prior_depth": 1, "prior_heads": 2}
    rules = {
        "prior_width % prior_heads == 0": "prior_width must be divisible by prior_heads",
        "quantizer == 'ema' or residual == 1": "finite scalar quantisation has no residual levels",
        "quantizer == 'ema' or code_dim is None": "num_codes decides the code_dim of finite scalar quantisation",
        "quantizer == 'ema' or commitment == 0.25": "commitment belongs to quantizer=ema",
        "quantizer == 'ema' or num_codes in (64, 256, 512, 1024, 4096)": (
            "finite scalar quantisation has 64, 256, 512, 1024 or 4096 codes"
        ),
        "adversarial > 0 or adversarial_start == 0": "without a discriminator nothing starts: set adversarial, too",
    }

    without = {
        "latent": (
            "an image's numbers before the quantiser are too many to fit a density to afterwards, so its prior is the "
            "transformer that learned the codes beside it (temperature=0.9); to train another on this run: "
            "dataset=codes or dataset=latents"
        ),
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 32,
        depth: PositiveInt = 2,
        halvings: PositiveInt = 2,
        quantizer: Literal["ema", "fsq"] = "ema",
        num_codes: PositiveInt = 256,
        code_dim: PositiveInt | None = None,
        residual: PositiveInt = 1,
        commitment: PositiveFloat = 0.25,
        prior_width: PositiveInt = 64,
        prior_depth: PositiveInt = 3,
        prior_heads: PositiveInt = 4,
        adversarial: NonNegativeFloat = 0.0,
        adversarial_start: NonNegativeInt = 0,
        perceptual: NonNegativeFloat = 0.0,
    ):
        super().__init__(spec)
        if perceptual and not spec.classes:
            raise ValueError(
                f"model.perceptual={perceptual} compares images by a classifier, and these data have no labels: use 0"
            )
        channels, *sides = spec.shape
        if any(side % 2**halvings for side in sides):
            raise ValueError(f"halvings={halvings} needs sides divisible by {2**halvings}, not {sides[0]}x{sides[1]}")
        self.grid = [side // 2**halvings for side in sides]  # (h, w) of the grid of codes
        self.residual, self.commitment = residual, commitment
        self.adversarial, self.adversarial_start = adversarial, adversarial_start
        if quantizer == "ema":
            self.quantizer = VectorQuantizer(code_dim or 32, num_codes, residual)
            # Not in the paper: without it the encoder shrinks its vectors to nothing before the decoder reads them.
            self.normalise = nn.LayerNorm(self.quantizer.dim, elementwise_affine=False)
        else:
            self.normalise = nn.Identity()
            self.quantizer = FiniteScalarQuantizer(FSQ_LEVELS[num_codes])
        self.num_codes = self.quantizer.num_codes
        size = {"width": width, "halvings": halvings, "depth": depth}
        self.encoder = MapEncoder(channels, self.quantizer.dim, **size)
        self.decoder = MapDecoder(self.quantizer.dim, channels, **size)
        self.prior = CodePrior(
            self.quantizer.num_codes, math.prod(self.grid) * residual,
            width=prior_width, depth=prior_depth, heads=prior_heads,
        )  # fmt: skip
        self.discriminator = build_patch_discriminator(channels, width) if adversarial else None
        self.perceptual = perceptual
        self.classifier = ImageClassifier(channels, len(spec.classes), width=width) if perceptual else None

    def train_step(self, step: Step) -> None:
        weight = self.adversarial if step.number >= self.adversarial_start else 0.0
        step.minimize("autoencoder", partial(self.autoencoder_loss, adversarial=weight))
        if self.discriminator is not None:
            step.minimize("discriminator", self.discriminator_loss)
        if self.classifier is not None:
            step.minimize("classifier", self.classifier_loss)
        step.minimize("prior", self.prior_loss)

    def autoencoder_loss(self, batch: Batch, *, adversarial: float) -> tuple[Tensor, Metrics]:
        x = to_unit(batch["image"], self.spec.value_range)
        quantized = self.quantize(x, learn=True)
        reconstruction = self.reconstruct(quantized.vectors)
        error = (reconstruction - x).square().flatten(1).sum(1).mean()
        commitment = quantized.commitment.sum() / len(x)  # over the positions of an image
        used = perplexities(quantized.indices, self.quantizer.num_codes)
        metrics = {"squared_error": error, "commitment": commitment, **used}
        loss = error + self.commitment * commitment
        if self.classifier is not None:
            metrics["perceptual"] = self.classifier.distance(reconstruction, x).mean()
            loss = loss + self.perceptual * metrics["perceptual"]
        if adversarial:
            metrics["adversarial"] = nonsaturating(self.discriminator(reconstruction))
            loss = loss + adversarial * metrics["adversarial"]
        return loss, metrics

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        real = to_unit(batch["image"], self.spec.value_range)
        with torch.no_grad():
            fake = self.reconstruct(self.quantize(real).vectors)
        real_logits, fake_logits = self.discriminator(torch.cat([real, fake])).chunk(2)  # each (B, 1, h, w)
        metrics = {"real_probability": real_logits.sigmoid().mean(), "fake_probability": fake_logits.sigmoid().mean()}
        return discriminator_loss(real_logits, fake_logits), metrics

    def classifier_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Of images as they are: what it sees in them is what reconstructions are compared by."""
        logits = self.classifier(to_unit(batch["image"], self.spec.value_range)).float()
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return F.cross_entropy(logits, batch["label"]), {"accuracy": accuracy}

    def prior_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Nats per code, of the codes as they are now."""
        with torch.no_grad():
            codes = self.codes_of(batch["image"])
        return self.prior.nll(codes).mean() / self.prior.length, {}

    def quantize(self, x: Tensor, *, learn: bool = False) -> Quantized:
        """(B, C, H, W) in [0, 1] to B h w vectors, in the order of a page."""
        return self.quantizer(self.encode_positions(x), learn=learn and self.training)

    def encode_positions(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B h w, D): what the quantiser is given."""
        return self.normalise(self.encoder(x).permute(0, 2, 3, 1).flatten(0, 2))

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """(B h w, D) to (B, C, H, W), about in [0, 1]: linear, as a squared error has it."""
        maps = vectors.unflatten(0, (-1, *self.grid)).permute(0, 3, 1, 2)  # (B, D, h, w)
        return self.decoder(maps).float() + 0.5

    def codes_of(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, h w Q) int64: position after position, its Q levels together."""
        indices = self.quantize(to_unit(x, self.spec.value_range)).indices  # (B h w, Q)
        return indices.reshape(len(x), -1)

    def image_of(self, codes: Tensor) -> Tensor:
        """(B, h w Q) int64 to (B, C, H, W) in the range of the data."""
        vectors = self.quantizer.vectors_of(codes.reshape(-1, self.residual))
        return from_unit(self.reconstruct(vectors).clamp(0, 1), self.spec.value_range)

    def latents_of(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, h, w), not yet quantised: that is left to the decoder (Rombach et al. 2022, 3.1)."""
        vectors = self.encode_positions(to_unit(x, self.spec.value_range))
        return vectors.unflatten(0, (-1, *self.grid)).permute(0, 3, 1, 2)

    def decode_latents(self, latents: Tensor) -> Tensor:
        quantized = self.quantizer(latents.permute(0, 2, 3, 1).flatten(0, 2))
        return from_unit(self.reconstruct(quantized.vectors).clamp(0, 1), self.spec.value_range)

    def sample(self, random: RowRandom, *, temperature: PositiveFloat = 1.0) -> Tensor:
        """Codes from the prior, decoded. A temperature below 1 keeps to the likelier ones."""
        return self.image_of(self.prior.draw(random, temperature=temperature))

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        groups = {
            "autoencoder": [*self.encoder.parameters(), *self.decoder.parameters()],
            "prior": list(self.prior.parameters()),
        }
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        if self.classifier is not None:
            groups["classifier"] = list(self.classifier.parameters())
        return groups

    def ema_parameters(self) -> Iterable[Parameter]:
        """The prior alone: the codebook follows the encoder as it is, and not its average."""
        return self.prior.parameters()

    def evaluate(self, batch: Batch) -> Metrics:
        """The error, the bits of an image as plain codes, and those that the prior, as a compressor, needs."""
        codes = self.codes_of(batch["image"])
        error = (self.image_of(codes) - batch["image"]).flatten(1).square().sum(1)
        low, high = self.spec.value_range
        bits = torch.full_like(error, self.prior.length * math.log2(self.quantizer.num_codes))
        return {
            "squared_error": error / (high - low) ** 2,
            "code_bits": bits,
            "prior_bits": self.prior.nll(codes) / math.log(2),
        }

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions."""
        image = batch["image"]
        return {"reconstruction": alternate_rows(image, self.image_of(self.codes_of(image)))}


def build_patch_discriminator(channels: int, width: int) -> nn.Sequential:
    """(B, C, H, W) to a logit for each patch, (B, 1, H / 4, W / 4) (Isola et al. 2017, arXiv:1611.07004)."""
    return nn.Sequential(
        halving(channels, width), nn.LeakyReLU(0.2), halving(width, 2 * width), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 3, padding=1),
    )  # fmt: skip
