"""Masked autoencoder for distribution estimation (Germain et al. 2015, arXiv:1502.03509).

p(x) = prod_d p(x_d | x before it), all conditionals in one pass of a perceptron whose weights are masked so that none
sees its own number or a later one. The likelihood is exact. `genai train model=made dataset=binary_mnist`
"""

import functools
import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.conditionals import conditional_of
from genai_cli.nn.labels import sample_labels
from genai_cli.nn.masked import MaskedLinear, even_degrees, random_degrees, raster_scans
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import mean_over_ranks
from genai_cli.rules import Fraction, NonNegativeInt, PositiveInt


class MADE(GenerativeModel):
    """Perceptron with `depth` masked hidden layers of `width`.

    What a conditional is follows from the data: a coin for black and white pixels, a mixture of `num_components` (10)
    discretised logistics for grey and coloured ones, of Gaussians for points.

    With `num_masks` > 1 the training steps take turns with that many masks, and the model is the equal mixture of all
    (Sections 4.2 and 4.3): of their hidden degrees under `order=natural`, of random orders too under `order=random`, of
    the raster scans of an image under `order=scans`. With `shared=false` each mask has weights of its own.
    `residual` adds each further hidden layer to the one before it. `direct` connects the numbers to the predictions
    without a hidden layer between, too: hidden units are shared by all numbers, so few know the very last ones.
    `conditional` learns p(x | label). Numbers are seen relative to their mean in the first batch (not in the paper).
    """

    modalities = ("image", "points", "series")
    monitor = "nll"
    figures = {"bits_per_dim": "bits per dimension, exact"}
    rules = {
        "order != 'scans' or num_masks <= 8": "an image has eight raster scans: rows or columns, from each corner",
        "shared or num_masks > 1": "shared=false is of several masks, each with weights of its own",
    }
    tiny = {"width": 8, "depth": 2, "num_components": 2, "num_masks": 2, "direct": False}

    mean: Tensor  # (D,)
    is_measured: Tensor  # bool

    def __init__(
        self,
        spec: Spec,
        *,
        width: PositiveInt = 1024,
        depth: PositiveInt = 2,
        residual: bool = True,
        direct: bool = True,
        order: Literal["natural", "random", "scans"] = "natural",
        num_masks: PositiveInt = 1,
        shared: bool = True,
        num_components: PositiveInt | None = None,
        dropout: Fraction = 0.0,
        conditional: bool = False,
    ):
        super().__init__(spec)
        if conditional and not spec.classes:
            raise ValueError("model.conditional=true needs data with labels; take model.conditional=false")
        if order == "scans" and spec.modality != "image":
            raise ValueError(f"model.order=scans needs images, and these are {spec.modality}; take model.order=random")
        self.num_dims = math.prod(spec.shape)  # D
        self.is_conditional = conditional
        self.conditional = conditional_of(spec, num_components)
        size = {"width": width, "depth": depth, "residual": residual, "direct": direct, "dropout": dropout}
        self.perceptrons = nn.ModuleList(
            MaskedPerceptron(self.num_dims, self.conditional.num_parameters, len(spec.classes) * conditional, **size)
            for _ in range(1 if shared else num_masks)
        )
        positions, degrees = build_masks(spec.shape, width, num_masks, order)
        self.register_buffer("positions", positions, persistent=False)  # (M, D) int32: of each number in the order
        self.register_buffer("degrees", degrees, persistent=False)  # (M, width) int32: of the hidden units
        self.register_buffer("mean", torch.zeros(self.num_dims))
        self.register_buffer("is_measured", torch.tensor(False))

    def perceptron(self, mask: int) -> "MaskedPerceptron":
        return self.perceptrons[mask % len(self.perceptrons)]

    def forward(self, x: Tensor, mask: int, label: Tensor | None = None, dropout_of: RowRandom | None = None) -> Tensor:
        """(B, D) -> (B, D, P): of each number the parameters of its conditional; dropout draws from `dropout_of`."""
        outputs = self.perceptron(mask)(x - self.mean, self.positions[mask], self.degrees[mask], label, dropout_of)
        return outputs + self.conditional.at_rest(self.mean)

    def train_step(self, step: Step) -> None:
        mask = step.number % len(self.positions)
        step.minimize("model", functools.partial(self.loss_of_mask, mask=mask))

    def loss_of_mask(self, batch: Batch, *, mask: int) -> tuple[Tensor, Metrics]:
        """Nats per number, under one of the masks."""
        nll = self.nll_of_mask(batch, mask).mean()
        return nll / self.num_dims, {"nll": nll.detach()}

    def nll_of_mask(self, batch: Batch, mask: int) -> Tensor:
        """-log p(x) in nats, (B,)."""
        x = batch[self.spec.key].flatten(1)
        if self.training and not self.is_measured:
            self._measure(x)
        parameters = self(x, mask, batch["label"] if self.is_conditional else None, batch.random)
        return self.conditional.nll(parameters, x).sum(1)

    @torch.no_grad()
    def _measure(self, x: Tensor) -> None:
        """The mean of each number, of the rows of all ranks."""
        self.mean.copy_(mean_over_ranks(x.mean(0)))
        self.is_measured.fill_(True)

    def evaluate(self, batch: Batch) -> Metrics:
        """Exact: -log of the mean over masks of p(x)."""
        nll = torch.stack([self.nll_of_mask(batch, mask) for mask in range(len(self.positions))])  # (M, B)
        mixture = math.log(len(nll)) - (-nll).logsumexp(0)
        if self.spec.modality != "image":
            return {"nll": mixture}
        return {"nll": mixture, "bits_per_dim": mixture / (self.num_dims * math.log(2))}

    def sample(self, random: RowRandom, *, label: NonNegativeInt | None = None) -> Tensor:
        """Number by number. Class-conditional samples are of `label`, or of each class in turn."""
        if not self.is_conditional and label is not None:
            raise ValueError(f"label={label} needs a model trained with model.conditional=true")
        labels = sample_labels(random, len(self.spec.classes), label) if self.is_conditional else None
        chosen = random.integers(len(self.positions))  # (B,), of the masks
        noise = random.uniform(self.num_dims, 2)
        x = noise.new_zeros(random.size, self.num_dims)
        for mask in chosen.unique().tolist():
            rows = chosen == mask
            x[rows] = self.draw_with_mask(noise[rows], mask, None if labels is None else labels[rows])
        return x.unflatten(1, self.spec.shape)

    def draw_with_mask(self, noise: Tensor, mask: int, label: Tensor | None) -> Tensor:
        """(B, D), from uniform noise (B, D, 2), in one pass in all.

        Hidden units of one degree are computed once, when the numbers that they know are drawn; numbers between two
        degrees depend on the same units and, but for direct connections, are drawn together.
        """
        position, degree = self.positions[mask], self.degrees[mask]
        perceptron = self.perceptron(mask)
        x = noise.new_zeros(len(noise), self.num_dims)
        seen = torch.zeros_like(x)  # x relative to its mean, where it is drawn
        layers = [noise.new_zeros(len(noise), len(degree)) for _ in range(1 + len(perceptron.hidden))]
        order = position.argsort()  # (D,): which number comes when
        borders = [0, *degree.unique().tolist(), self.num_dims]  # units of degree m follow number m - 1
        for start, stop in itertools.pairwise(borders):
            if start > 0:
                perceptron.compute_units((degree == start).nonzero().squeeze(1), seen, layers, label)
            self._draw_block(order[start:stop], mask, x, seen, layers[-1], noise)
        return x

    def _draw_block(self, block: Tensor, mask: int, x: Tensor, seen: Tensor, hidden: Tensor, noise: Tensor) -> None:
        """Numbers `block` (n,), which see the same hidden units, in place; `seen` is `x` relative to its mean."""
        perceptron = self.perceptron(mask)
        parameters = perceptron.rows(perceptron.out, hidden, block)  # (B, n, P)
        parameters = parameters + self.conditional.at_rest(self.mean[block])
        if perceptron.direct is None:
            x[:, block] = self.conditional.draw(parameters, noise[:, block])
            seen[:, block] = x[:, block] - self.mean[block]
            return
        for number, own in zip(block.split(1), parameters.split(1, 1), strict=True):
            own = own + perceptron.rows(perceptron.direct, seen, number)
            x[:, number] = self.conditional.draw(own, noise[:, number])
            seen[:, number] = x[:, number] - self.mean[number]


class MaskedPerceptron(nn.Module):
    """(B, D) to (B, D, P): of each number what its conditional is told by the numbers before it."""

    def __init__(
        self, num_dims: int, num_parameters: int, num_classes: int, *, width: int, depth: int, residual: bool,
        direct: bool, dropout: float,
    ):  # fmt: skip
        super().__init__()
        self.num_parameters = num_parameters  # P
        self.residual, self.dropout = residual, dropout
        self.into = MaskedLinear(num_dims, width)
        self.hidden = nn.ModuleList(MaskedLinear(width, width) for _ in range(depth - 1))
        self.out = MaskedLinear(width, num_dims * num_parameters)
        self.direct = MaskedLinear(num_dims, self.out.out_features, bias=False) if direct else None
        self.label = nn.Embedding(num_classes, width) if num_classes else None

    def forward(
        self, x: Tensor, position: Tensor, degree: Tensor, label: Tensor | None, dropout_of: RowRandom | None
    ) -> Tensor:
        """`position` (D,) of the numbers in the order, `degree` (width,) of the hidden units."""
        hidden = self.into(x, position + 1, degree)
        if self.label is not None:
            hidden = hidden + self.label(label)
        hidden = self._drop(F.relu(hidden), dropout_of)
        for layer in self.hidden:
            update = self._drop(F.relu(layer(hidden, degree, degree)), dropout_of)
            hidden = hidden + update if self.residual else update
        limit = position.repeat_interleave(self.num_parameters)
        outputs = self.out(hidden, degree, limit)
        if self.direct is not None:
            outputs = outputs + self.direct(x, position + 1, limit)
        return outputs.unflatten(1, (-1, self.num_parameters))

    def _drop(self, hidden: Tensor, random: RowRandom | None) -> Tensor:
        """Dropout that is a function of the row, as all randomness of a step."""
        if random is None or self.dropout == 0 or not self.training:
            return hidden
        is_kept = random.uniform(hidden.shape[1]) >= self.dropout
        return hidden * is_kept / (1 - self.dropout)

    def rows(self, layer: MaskedLinear, x: Tensor, block: Tensor) -> Tensor:
        """What `layer` alone says of the numbers `block` (n,): (B, n, P)."""
        rows = block.unsqueeze(1) * self.num_parameters + torch.arange(self.num_parameters, device=x.device)  # (n, P)
        return layer.rows(x, rows.flatten()).unflatten(1, rows.shape)

    def compute_units(self, units: Tensor, x: Tensor, layers: list[Tensor], label: Tensor | None) -> None:
        """The hidden units `units` of every layer, in place."""
        update = self.into.rows(x, units)
        if self.label is not None:
            update = update + self.label(label)[:, units]
        layers[0][:, units] = F.relu(update)
        for layer, below, above in zip(self.hidden, layers, layers[1:], strict=False):
            update = F.relu(layer.rows(below, units))
            above[:, units] = below[:, units] + update if self.residual else update


def build_masks(shape: tuple[int, ...], width: int, num_masks: int, order: str) -> tuple[Tensor, Tensor]:
    """The positions of the numbers (M, D) and the degrees of the hidden units (M, width), int32.

    The first mask and every scan have evenly spread degrees; the others, and random orders, are drawn.
    """
    num_dims = math.prod(shape)
    generator = torch.Generator().manual_seed(0)
    if order == "scans":
        return raster_scans(shape)[:num_masks], even_degrees(width, num_dims).expand(num_masks, -1)
    positions, degrees = [], []
    for mask in range(num_masks):
        is_natural = order == "natural"
        shuffled = torch.randperm(num_dims, generator=generator)
        positions.append((torch.arange(num_dims) if is_natural else shuffled).to(torch.int32))
        degrees.append(even_degrees(width, num_dims) if mask == 0 else random_degrees(width, num_dims, generator))
    return torch.stack(positions), torch.stack(degrees)
