"""InfoGAN (Chen et al. 2016, arXiv:1606.03657): codes that mean something. `genai train model=infogan dataset=mnist`

Part of what the generator starts from is a code: one of several categories, and numbers in [-1, 1]. A third network Q,
on the discriminator's features, guesses the code from the image; both players raise a lower bound of the mutual
information between code and image (Eq. 5), so the generator may not ignore it.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics, Step
from genai_cli.nn.convnets import DISCRIMINATOR_NORMS, Generator, build_discriminator, initialise, split_side
from genai_cli.nn.game import Game, check_norm
from genai_cli.nn.random import RowRandom
from genai_cli.nn.regularizers import spectrally_normalise
from genai_cli.rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class InfoGAN(GenerativeModel):
    """The networks of DCGAN, with a code of `categories` and `continuous` numbers that Q reads back from the image.

    The latent vector is noise, a category as a unit vector, and the numbers, in this order.
    """

    modalities = ("image",)
    tiny = {"noise_dim": 4, "width": 4, "categories": 3}

    def __init__(
        self,
        spec: Spec,
        *,
        noise_dim: PositiveInt = 62,
        categories: PositiveInt = 10,
        continuous: PositiveInt = 2,
        category_weight: NonNegativeFloat = 1.0,
        continuous_weight: NonNegativeFloat = 0.1,
        width: PositiveInt = 32,
        loss: Literal["nonsaturating", "minimax", "lsgan", "wgan", "hinge", "relativistic"] = "nonsaturating",
        regularizer: Literal["none", "gp", "r1", "r2", "r1r2", "lecam", "consistency"] = "none",
        regularizer_weight: PositiveFloat | None = None,
        regularizer_every: PositiveInt = 1,
        spectral: bool = False,
        critic_steps: PositiveInt = 1,
        augment: Literal["none", "diffaug", "ada"] = "none",
    ):
        super().__init__(spec)
        self.noise_dim, self.categories, self.continuous = noise_dim, categories, continuous
        self.latent_dim = noise_dim + categories + continuous
        self.category_weight, self.continuous_weight = category_weight, continuous_weight
        self.game = Game(
            spec, loss=loss, regularizer=regularizer, regularizer_weight=regularizer_weight,
            regularizer_every=regularizer_every, spectral=spectral, critic_steps=critic_steps, augment=augment,
        )  # fmt: skip
        self.batches_per_step = critic_steps
        base, num_stages = split_side(spec.shape)
        channels = [width * 2**stage for stage in range(num_stages)]  # from fine to coarse
        self.generator = Generator(spec, self.latent_dim, base, channels[::-1])
        norm = DISCRIMINATOR_NORMS[check_norm("auto", regularizer, is_spectral=spectral)]
        # D's logit, Q's logits of the categories, and means and log variances of the numbers.
        outputs = 1 + categories + 2 * continuous
        self.discriminator = build_discriminator(spec.shape[0], base, channels, norm=norm, outputs=outputs)
        self.apply(initialise)
        if spectral:
            spectrally_normalise(self.discriminator)

    def train_step(self, step: Step) -> None:
        self.game.play(step, self.discriminator_loss, self.generator_loss)

    def discriminator_loss(self, batch: Batch, *, regularize: bool = True) -> tuple[Tensor, Metrics]:
        latent = self.draw_latent(batch.random)
        with torch.no_grad():
            fake = self.decode(latent)
        return self.game.discriminator_loss(
            self.discriminator, batch["image"], fake, batch.random,
            regularize=regularize, further=partial(self.miss, latent),
        )  # fmt: skip

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        latent = self.draw_latent(batch.random)
        further = partial(self.miss, latent)
        return self.game.generator_loss(
            self.discriminator, self.decode(latent), batch["image"], batch.random, further=further
        )

    def miss(self, latent: Tensor, real: Tensor | None, guess: Tensor) -> tuple[Tensor, Metrics]:
        """-E log Q(c | G(z, c)), weighted; `guess` (B, K + 2 C) is Q's. Data have no code to guess."""
        category_nll, continuous_nll = self.code_nll(latent, guess)
        metrics = {"category_information": math.log(self.categories) - category_nll.mean()}
        metrics["continuous_information"] = self.continuous * math.log(2) - continuous_nll.mean()
        loss = self.category_weight * category_nll.mean() + self.continuous_weight * continuous_nll.mean()
        return loss, metrics

    def code_nll(self, latent: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """-log Q(c | x) of the category and of the numbers, (B,) each, in nats."""
        _, category, numbers = self.split(latent)
        logits, mean, logvar = guess.float().split([self.categories, self.continuous, self.continuous], dim=1)
        logvar = 6 * torch.tanh(logvar / 6)  # a deviation of 0.05 to 20
        nll = 0.5 * ((numbers - mean).square() / logvar.exp() + logvar + math.log(2 * math.pi))  # (B, C)
        return F.cross_entropy(logits, category.argmax(1), reduction="none"), nll.sum(1)

    def split(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, latent_dim) to noise, category (one-hot) and numbers."""
        noise, category, numbers = latent.split([self.noise_dim, self.categories, self.continuous], dim=1)
        return noise, category, numbers

    def sample(self, random: RowRandom, *, category: NonNegativeInt | None = None) -> Tensor:
        """Of random codes, or all of one category. Raises ValueError if there is no such category."""
        latent = self.draw_latent(random)
        if category is not None:
            if category >= self.categories:
                raise ValueError(f"category={category} must be below {self.categories}, the number of categories")
            noise, _, numbers = self.split(latent)
            chosen = F.one_hot(torch.full((random.size,), category, device=random.device), self.categories)
            latent = torch.cat([noise, chosen.to(noise), numbers], dim=1)
        return self.decode(latent)

    def draw_latent(self, random: RowRandom) -> Tensor:
        noise = random.normal(self.noise_dim)
        category = F.one_hot(random.integers(self.categories), self.categories).to(noise)
        return torch.cat([noise, category, 2 * random.uniform(self.continuous) - 1], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        return self.generator(latent)

    def evaluate(self, batch: Batch) -> Metrics:
        """The bound on the information that images carry about their code, in nats; of the generator's own images.

        At most log(categories) and, of each number, what its guessed deviation leaves of log 2.
        """
        latent = self.draw_latent(batch.random)
        category_nll, continuous_nll = self.code_nll(latent, self.discriminator(self.decode(latent))[:, 1:])
        return {
            "category_information": math.log(self.categories) - category_nll,
            "continuous_information": self.continuous * math.log(2) - continuous_nll,
        }

    def parameter_groups(self) -> dict[str, Iterable[Parameter]]:
        return {"discriminator": self.discriminator.parameters(), "generator": self.generator.parameters()}

    def ema_parameters(self) -> Iterable[Parameter]:
        return self.generator.parameters()
