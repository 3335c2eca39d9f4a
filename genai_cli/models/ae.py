"""Deep autoencoder (Hinton & Salakhutdinov 2006, Science 313). `genai train model=ae dataset=mnist`

Squeezes each example through a code of `latent_dim` numbers, and learns to make the squared error of what comes out
small. Principal components are its linear case, and stand beside it in `genai evaluate`.
"""

import math

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.mlp import mlp
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import flatten_to_unit, from_unit
from genai_cli.nn.ranks import sum_over_ranks
from genai_cli.nn.rows import alternate_rows
from genai_cli.rules import PositiveInt


class AutoEncoder(GenerativeModel):
    """Two perceptrons around a code: data -> width -> width / 2 -> width / 4 -> latent_dim, and back.

    Errors are sums over the coordinates of an example, in units of the data's range (pixels in [0, 1]) where they have
    one. The paper's sigmoid units, which need pretraining, are SiLU after layer normalisation here; its linear code and
    sigmoid output are kept.
    """

    modalities = ("image", "points")
    monitor = "squared_error"
    tiny = {"width": 8, "latent_dim": 2}
    rules = {"width % 4 == 0": "width must be divisible by 4: the layers have width, width / 2 and width / 4 units"}

    def __init__(self, spec: Spec, *, latent_dim: PositiveInt = 30, width: PositiveInt = 1000):
        super().__init__(spec)
        self.latent_dim = latent_dim
        widths = [math.prod(spec.shape), width, width // 2, width // 4, latent_dim]
        self.encoder = mlp(widths, nn.SiLU, norm=nn.LayerNorm)
        self.decoder = mlp(widths[::-1], nn.SiLU, norm=nn.LayerNorm)
        self.codes = RunningGaussian(latent_dim)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        x = flatten_to_unit(batch[self.spec.key], self.spec.value_range)
        code = self.encoder(x)
        self.codes.update(code.detach().float())
        return (self.reconstruct(code) - x).square().sum(1).mean(), {}

    def reconstruct(self, code: Tensor) -> Tensor:
        """(B, latent_dim) to (B, D), in [0, 1] where the data have a range."""
        output = self.decoder(code).float()
        return output if self.spec.value_range is None else output.sigmoid()

    def sample(self, random: RowRandom) -> Tensor:
        """Decoded draws from the Gaussian with the mean and covariance of the training codes.

        An autoencoder has no prior: this is the simplest one that fits its codes, and no part of what it learned.
        """
        return self.decode(self.draw_latent(random))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return self.codes.draw(random)

    def decode(self, latent: Tensor) -> Tensor:
        x = self.reconstruct(latent)
        value_range = self.spec.value_range
        return (x if value_range is None else from_unit(x, value_range)).unflatten(1, self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(flatten_to_unit(x, self.spec.value_range))

    def evaluate(self, batch: Batch) -> Metrics:
        x = flatten_to_unit(batch[self.spec.key], self.spec.value_range)
        return {"squared_error": (self.reconstruct(self.encoder(x)) - x).square().sum(1)}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of data, each above the row of their reconstructions."""
        x = batch[self.spec.key]
        return {"reconstruction": alternate_rows(x, self.decode(self.encode(x)))}

    def baselines(self, train: Tensor, test: Tensor) -> dict[str, float]:
        train, test = (flatten_to_unit(x, self.spec.value_range) for x in (train, test))
        return {f"squared_error_pca{self.latent_dim}": pca_squared_error(train, test, self.latent_dim)}


class RunningGaussian(nn.Module):
    """The mean and covariance of the rows that training lately saw, each batch of all ranks counting for `momentum`."""

    mean: Tensor  # (D,)
    covariance: Tensor  # (D, D)

    def __init__(self, dim: int, *, momentum: float = 0.01):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Take in the rows (B, D) of every rank, in training alone."""
        if not self.training:
            return
        count = sum_over_ranks(rows.new_tensor(len(rows)))
        mean = sum_over_ranks(rows.sum(0)) / count
        centred = rows - mean
        covariance = sum_over_ranks(centred.T @ centred) / count
        self.mean.lerp_(mean, self.momentum)
        self.covariance.lerp_(covariance, self.momentum)

    def draw(self, random: RowRandom) -> Tensor:
        """(random.size, D)."""
        variances, axes = torch.linalg.eigh(self.covariance)  # (D,), and a column for each
        return self.mean + (random.normal(len(variances)) * variances.clamp(min=0).sqrt()) @ axes.T


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
