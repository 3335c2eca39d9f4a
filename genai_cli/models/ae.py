"""Deep autoencoder (Hinton & Salakhutdinov 2006, Science 313). `genai train model=ae dataset=mnist`

Squeezes each example through a code of `latent_dim` numbers, and learns to make the squared error of what comes out
small. Principal components are its linear case, and stand beside it in `genai evaluate`.

Its kin are options: denoising (Vincent et al. 2008), k-sparse (Makhzani & Frey 2014, arXiv:1312.5663), contractive
(Rifai et al. 2011), and regularised so as to generate (Ghosh et al. 2020, arXiv:1903.12436; preset `rae`).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.coders import build_decoder, build_encoder, resolve_backbone
from genai_cli.nn.jacobians import jacobian_norm
from genai_cli.nn.latents import CodeMemory
from genai_cli.nn.linear import FastLinear
from genai_cli.nn.mlp import mlp
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit, from_unit
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import Fraction, NonNegativeFloat, PositiveInt


class AutoEncoder(GenerativeModel):
    """Two perceptrons around a code: data -> width -> width / 2 -> width / 4 -> latent_dim, and back; or convolutions.

    Errors are sums over the coordinates of an example, in units of the data's range (pixels in [0, 1]) where they have
    one. The paper's sigmoid units, which need pretraining, are SiLU after layer normalisation here; its linear code and
    sigmoid output are kept.

    In training, `noise` (a standard deviation) and `mask` (a share of coordinates set to 0) spoil what the encoder is
    given; `active` keeps only as many of the code's largest numbers; `contraction`, `code_decay`, `decoder_decay` and
    `smoothness` weigh the squared norms of the encoder's Jacobian, the code, the decoder's weights and its Jacobian.
    """

    modalities = ("image", "points", "series", "audio")
    monitor = "squared_error"
    tiny = {"width": 8, "latent_dim": 2}
    rules = {
        "width % 4 == 0 or backbone != 'mlp'": (
            "width must be divisible by 4: the layers have width, width / 2 and width / 4 units"
        ),
        "active is None or active <= latent_dim": "no more numbers can be active than the code has",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 30,
        width: PositiveInt = 1000,
        backbone: Literal["auto", "mlp", "conv"] = "mlp",
        noise: NonNegativeFloat = 0.0,
        mask: Fraction = 0.0,
        active: PositiveInt | None = None,
        contraction: NonNegativeFloat = 0.0,
        code_decay: NonNegativeFloat = 0.0,
        decoder_decay: NonNegativeFloat = 0.0,
        smoothness: NonNegativeFloat = 0.0,
    ):
        super().__init__(spec)
        self.latent_dim, self.noise, self.mask, self.active = latent_dim, noise, mask, active
        self.contraction, self.code_decay = contraction, code_decay
        self.decoder_decay, self.smoothness = decoder_decay, smoothness
        data_dim = math.prod(spec.shape)
        if resolve_backbone(backbone, spec) == "mlp":
            widths = [data_dim, width, width // 2, width // 4, latent_dim]
            self.encoder = mlp(widths, nn.SiLU, nn.LayerNorm, nn.Linear if contraction else FastLinear)
            self.decoder = mlp(widths[::-1], nn.SiLU, nn.LayerNorm, nn.Linear if smoothness else FastLinear)
        else:
            size = {"backbone": "conv", "width": width, "activation": nn.SiLU}
            self.encoder = build_encoder(spec, latent_dim, **size)
            self.decoder = build_decoder(spec, latent_dim, data_dim, **size)
        self.codes = CodeMemory(latent_dim)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        x = flatten_to_unit(batch[self.spec.key], self.spec.value_range)
        seen = self.spoil(x, batch.random)
        if self.contraction:
            seen = seen.detach().requires_grad_()
        code = self.code(seen)
        self.codes.update(code)
        error = (self.reconstruct(code) - x).square().sum(1).mean()
        penalties = self.penalties(seen, code, batch.random)
        return sum(penalties.values(), error), {"squared_error": error, **penalties} if penalties else {}

    def spoil(self, x: Tensor, random: RowRandom) -> Tensor:
        """What the encoder is given in training: x with Gaussian and with masking noise."""
        if self.noise:
            x = x + self.noise * random.normal(x.shape[1])
        if self.mask:
            x = x * (random.uniform(x.shape[1]) >= self.mask)
        return x

    def code(self, x: Tensor) -> Tensor:
        """(B, D) to (B, latent_dim), all but the `active` largest numbers (in absolute value) zero."""
        code = self.encoder(x)
        if self.active is None:
            return code
        kept = code.abs().topk(self.active, dim=1).indices
        return torch.zeros_like(code).scatter(1, kept, code.gather(1, kept))

    def penalties(self, x: Tensor, code: Tensor, random: RowRandom) -> Metrics:
        """The terms of the loss beside the error, already weighted; those with weight zero are left out."""
        terms: Metrics = {}
        if self.contraction:
            norm = jacobian_norm(code, x, random.normal(self.latent_dim))
            terms["contraction"] = self.contraction * norm.mean()
        if self.code_decay:
            terms["code_decay"] = self.code_decay * code.square().sum(1).mean()
        if self.decoder_decay:
            weights = [parameter.square().sum() for parameter in self.decoder.parameters()]
            terms["decoder_decay"] = self.decoder_decay * torch.stack(weights).sum()
        if self.smoothness:
            latent = code.detach().requires_grad_()
            output = self.reconstruct(latent)
            terms["smoothness"] = self.smoothness * jacobian_norm(output, latent, random.normal(output.shape[1])).mean()
        return terms

    @property
    def differentiates_twice(self) -> bool:
        return self.contraction > 0 or self.smoothness > 0

    def reconstruct(self, code: Tensor) -> Tensor:
        """(B, latent_dim) to (B, D), in [0, 1] where the data have a range."""
        output = self.decoder(code).float()
        return output if self.spec.value_range is None else output.sigmoid()

    def sample(self, random: RowRandom, *, latent: Literal["gmm", "gaussian", "flow", "prior"] = "gmm") -> Tensor:
        """Decoded draws from a distribution fitted to the training codes: ten Gaussians, one, or a small flow.

        An autoencoder has no prior: these are no part of what it learned.
        """
        return self.decode(self.codes.draw(random, latent))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return self.codes.draw(random, "gmm")

    def decode(self, latent: Tensor) -> Tensor:
        x = self.reconstruct(latent)
        value_range = self.spec.value_range
        return (x if value_range is None else from_unit(x, value_range)).unflatten(1, self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        return self.code(flatten_to_unit(x, self.spec.value_range))

    def evaluate(self, batch: Batch) -> Metrics:
        x = flatten_to_unit(batch[self.spec.key], self.spec.value_range)
        return {"squared_error": (self.reconstruct(self.code(x)) - x).square().sum(1)}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions."""
        x = batch[self.spec.key]
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x)))}

    def baselines(self, train: Tensor, test: Tensor) -> dict[str, float]:
        train, test = (flatten_to_unit(x, self.spec.value_range) for x in (train, test))
        return {f"squared_error_pca{self.latent_dim}": pca_squared_error(train, test, self.latent_dim)}


def pca_squared_error(train: Tensor, test: Tensor, num_components: int) -> float:
    """Mean over `test` (N, D) of the squared distance to the mean plus the span of the leading components of `train`.

    Of all affine maps through `num_components` numbers, no other has less on `train` (Eckart & Young 1936).
    """
    train, test = train.double(), test.double()
    mean = train.mean(0)
    centred = train - mean
    _, axes = torch.linalg.eigh(centred.T @ centred)  # ascending
    principal = axes[:, -num_components:]  # (D, K)
    rest = test - mean
    return (rest.square().sum(1) - (rest @ principal).square().sum(1)).mean().item()
