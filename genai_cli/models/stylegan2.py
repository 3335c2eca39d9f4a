"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) in the small. `genai train model=stylegan2 dataset=mnist`

z is mapped to w, which modulates every convolution; two latents are mixed within an image; noise gives the details.
R1 and the regularisation of path lengths come at intervals. Samples may be truncated towards the mean of w, take their
fine styles from another latent, and be edited along the principal directions of w. Fakes are unbounded in training;
samples are clamped to the range of the data.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.convnets import split_side
from genai_cli.nn.game import SECOND_DERIVATIVE, Game
from genai_cli.nn.random import BatchRandom, RowRandom, Twice
from genai_cli.nn.ranges import clamp_to_range
from genai_cli.nn.ranks import has_many_ranks, sum_over_ranks
from genai_cli.nn.regularizers import likeness
from genai_cli.nn.stylegan import Discriminator, Mapping, Synthesis
from genai_cli.rules import FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability

LAZY = 16  # steps from one penalty on gradients to the next (Appendix B)


class StyleGAN2(GenerativeModel):
    """Mapping, synthesis and a residual discriminator, for square images of side 4 or 7 times a power of two.

    `width` is the number of channels at the full side, doubled with every halving up to four times as many. `decode`
    makes images without noise.
    """

    modalities = ("image",)
    tiny = {"latent_dim": 4, "width": 2, "mapping_depth": 2}
    rules = {"path_weight > 0 or path_every == 8": "path_every belongs to path_weight above 0"}

    mean_w: Tensor  # (latent_dim,): of the raw weights of late
    mean_path: Tensor  # (): the length that paths are held at

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: PositiveInt = 64,
        mapping_depth: PositiveInt = 4,
        width: PositiveInt = 16,
        mixing: Probability = 0.9,
        diversity_weight: NonNegativeFloat = 0.3,
        path_weight: NonNegativeFloat = 2.0,
        path_every: PositiveInt = 8,
        loss: Literal["nonsaturating", "minimax", "lsgan", "wgan", "hinge", "relativistic"] = "nonsaturating",
        regularizer: Literal["none", "gp", "r1", "r2", "r1r2", "lecam", "consistency"] = "r1",
        regularizer_weight: PositiveFloat | None = None,
        regularizer_every: PositiveInt | None = None,
        critic_steps: PositiveInt = 1,
        augment: Literal["none", "diffaug", "ada"] = "none",
    ):
        super().__init__(spec)
        self.latent_dim, self.mixing, self.diversity_weight = latent_dim, mixing, diversity_weight
        self.path_weight, self.path_every = path_weight, path_every
        if regularizer_every is None:
            regularizer_every = LAZY if regularizer in SECOND_DERIVATIVE else 1
        self.game = Game(
            spec, loss=loss, regularizer=regularizer, regularizer_weight=regularizer_weight,
            regularizer_every=regularizer_every, critic_steps=critic_steps, augment=augment,
        )  # fmt: skip
        self.batches_per_step = critic_steps
        base, num_stages = split_side(spec.shape)
        channels = [width * min(4, 2**stage) for stage in range(num_stages + 1)]  # from fine to coarse
        self.mapping = Mapping(latent_dim, mapping_depth)
        self.synthesis = Synthesis(spec.shape[0], latent_dim, base, channels[::-1])
        self.discriminator = Discriminator(spec.shape[0], base, channels)
        self.register_buffer("mean_w", torch.zeros(latent_dim))
        self.register_buffer("mean_path", torch.zeros(()))

    def train_step(self, step: Step) -> None:
        is_due = step.number % self.path_every == 0
        self.game.play(step, self.discriminator_loss, partial(self.generator_loss, regularize=is_due))

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            styles, _ = self.draw_styles(batch.random)
            fake = self.synthesis(styles, batch.random)
        real = batch["image"]
        return self.game.discriminator_loss(self.discriminator, real, fake, batch.random, regularize=regularize)

    def generator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        styles, latents = self.draw_styles(batch.random)
        if self.diversity_weight > 0:
            other_styles, other_latents = self.draw_styles(batch.random)
            # With the same noise: the images are to differ by their styles.
            both = self.synthesis(torch.cat([styles, other_styles]), Twice(batch.random))
            fake, other = both.chunk(2)
        else:
            fake = self.synthesis(styles, batch.random)
        loss, metrics = self.game.generator_loss(self.discriminator, fake, batch["image"], batch.random)
        if self.diversity_weight > 0:
            metrics["likeness"] = likeness(fake, other, latents, other_latents)
            loss = loss + self.diversity_weight * metrics["likeness"]
        if regularize and self.path_weight > 0:
            penalty, length = self.path_penalty(fake, styles, batch.random)
            metrics |= {"path_penalty": penalty, "path_length": length}
            # Weighted by its interval (Appendix B), as the discriminator's regulariser is.
            loss = loss + self.path_weight * self.path_every * penalty
        return loss, metrics

    def draw_styles(self, random: RowRandom) -> tuple[Tensor, Tensor]:
        """w and z for every layer, (B, L, latent_dim) each: of one latent, or two that change at a random layer."""
        z, other_z = random.normal(self.latent_dim), random.normal(self.latent_dim)
        w, other_w = self.mapping(z), self.mapping(other_z)
        if self.training:
            self._follow_mean(self.mean_w, w.detach().mean(0), decay=0.995)
        num_layers = self.synthesis.num_layers
        is_mixed = random.uniform(1) < self.mixing
        crossover = 1 + random.integers(num_layers - 1, 1)  # (B, 1): the first layer of the second z
        is_second = (is_mixed & (torch.arange(num_layers, device=w.device) >= crossover))[..., None]  # (B, L, 1)
        return torch.where(is_second, other_w[:, None], w[:, None]), torch.where(
            is_second, other_z[:, None], z[:, None]
        )

    @property
    def differentiates_twice(self) -> bool:
        return self.path_weight > 0 or self.game.differentiates_twice

    def path_penalty(self, fake: Tensor, styles: Tensor, random: RowRandom) -> tuple[Tensor, Tensor]:
        """E (||J_w^T y||_2 - a)^2 for images y of noise, and the mean length a (Eq. 4).

        A step in w should change the image by the same amount everywhere. a follows the mean length.
        """
        # Noise of unit length on average, so that lengths do not depend on the number of pixels.
        noise = random.normal(*fake.shape[1:]) / math.sqrt(math.prod(fake.shape[2:]))
        (gradient,) = torch.autograd.grad((fake * noise).sum(), styles, create_graph=True)
        lengths = (gradient.square().sum(2).mean(1) + 1e-12).sqrt()  # (B,)
        if self.training:
            # The first length is taken as it is. From zero, as in the paper, a short run would end before the average
            # is right, its paths drawn to nothing, and with them the differences between images.
            is_first = bool(self.mean_path == 0)
            self._follow_mean(self.mean_path, lengths.detach().mean(), decay=0.0 if is_first else 0.99)
        return (lengths - self.mean_path).square().mean(), lengths.mean()

    def generate(self, styles: Tensor, random: RowRandom | None) -> Tensor:
        """(B, L, latent_dim) to (B, C, H, W), clamped, with noise if there is `random`."""
        return clamp_to_range(self.synthesis(styles, random), self.spec.value_range)

    def sample(
        self, random: RowRandom, *, truncation: FiniteFloat = 1.0, mix_layer: PositiveInt | None = None,
        direction: NonNegativeInt | None = None, strength: FiniteFloat | None = None,
    ) -> Tensor:  # fmt: skip
        """Of one z each. `truncation` below 1 draws w towards its mean: better images, and fewer kinds (Appendix).

        The first `mix_layer` layers take their style from that z, the others from a second one. `direction=j` moves w
        by `strength` deviations along its j-th principal direction. Raises ValueError for numbers out of range.
        """
        self._check_editing(mix_layer, direction, strength)
        styles = self._to_every_layer(self._truncated(self.draw_latent(random), truncation))
        if mix_layer is not None:
            fine = self._to_every_layer(self._truncated(self.draw_latent(random), truncation))
            styles = mix(styles, fine, mix_layer)
        if direction is not None:
            deviations, directions = self.principal_directions()
            styles = styles + strength * deviations[direction] * directions[direction]
        return self.generate(styles, random)

    @torch.no_grad()
    def principal_directions(self, num_latents: int = 4096) -> tuple[Tensor, Tensor]:
        """Of w over many z: deviations (D,), the largest first, and unit vectors, the rows of (D, D).

        GANSpace (Harkonen et al. 2020, arXiv:2004.02546, Section 2.2): w' = w + V x, of which x is one number here. The
        z are always the same, and each vector's largest coordinate is positive: a direction keeps its number and sense.
        """
        device = self.mean_w.device
        w = self.mapping(BatchRandom(0, stop=num_latents).normal(self.latent_dim).to(device)).double()
        variances, vectors = torch.linalg.eigh(w.t().cov())  # ascending; the columns are vectors
        deviations, directions = variances.clamp(min=0).sqrt().flip(0), vectors.t().flip(0)
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        return deviations.float(), (directions * largest.sign()).float()

    def _truncated(self, latent: Tensor, truncation: float) -> Tensor:
        """z to w, (B, latent_dim) each."""
        w = self.mapping(latent)
        return self.mean_w + truncation * (w - self.mean_w)

    def _check_editing(self, mix_layer: int | None, direction: int | None, strength: float | None) -> None:
        num_layers = self.synthesis.num_layers
        if mix_layer is not None and mix_layer >= num_layers:
            raise ValueError(f"mix_layer={mix_layer} must be from 1 to {num_layers - 1}, of {num_layers} layers")
        if direction is not None and direction >= self.latent_dim:
            raise ValueError(f"direction={direction} must be from 0 to {self.latent_dim - 1}, of {self.latent_dim}")
        if (direction is None) != (strength is None):
            raise ValueError(
                "direction and strength go together: which principal direction of w, and how many deviations along it, "
                "such as direction=0 strength=2"
            )

    def draw_latent(self, random: RowRandom) -> Tensor:
        return random.normal(self.latent_dim)

    def decode(self, latent: Tensor) -> Tensor:
        return self.generate(self._to_every_layer(self.mapping(latent)), None)

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.ema_parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return [*self.mapping.parameters(), *self.synthesis.parameters()]

    def _to_every_layer(self, w: Tensor) -> Tensor:
        return w[:, None].expand(-1, self.synthesis.num_layers, -1)

    @torch.no_grad()
    def _follow_mean(self, average: Tensor, mean: Tensor, *, decay: float) -> None:
        """Move a buffer towards the mean of this batch over all ranks."""
        if has_many_ranks():
            mean = sum_over_ranks(mean) / sum_over_ranks(torch.ones_like(mean))
        average.lerp_(mean, 1 - decay)


def mix(coarse: Tensor, fine: Tensor, layer: int) -> Tensor:
    """Styles (B, L, D): those of the first `layer` layers are `coarse`, the others `fine`."""
    return torch.cat([coarse[:, :layer], fine[:, layer:]], dim=1)
