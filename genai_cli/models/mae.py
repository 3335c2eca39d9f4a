"""Masked autoencoder (He et al. 2022, arXiv:2111.06377). `genai train model=mae dataset=mnist`

Three quarters of an image's patches are hidden. The encoder sees the others alone, a smaller decoder fills in the rest,
and the squared error of what was hidden is minimised. So that one vector stands for an image and can be drawn, the
decoder must also fill in all of it from the class token alone (ours, weighed by `summary`).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.base import GenerativeModel, Metrics
from genai_cli.nn.latents import CodeMemory
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranges import from_unit, to_unit
from genai_cli.nn.rows import side_by_side
from genai_cli.nn.vit import Encoder, from_patches, put, take, to_patches
from genai_cli.rules import Fraction, PositiveFloat, PositiveInt


class MAE(GenerativeModel):
    """Two transformers on patches of `patch` x `patch` pixels; the code of an image is its class token (`width`).

    Errors are means over pixels in [0, 1].
    """

    modalities = ("image",)
    monitor = "hidden_error"
    tiny = {"width": 8, "depth": 1, "heads": 2, "decoder_depth": 1}
    rules = {"width % heads == 0": "width must be divisible by heads"}

    def __init__(
        self,
        spec: Spec,
        *,
        patch: PositiveInt = 4,
        width: PositiveInt = 64,
        depth: PositiveInt = 4,
        heads: PositiveInt = 4,
        decoder_depth: PositiveInt = 2,
        mask_ratio: Fraction = 0.75,
        summary: PositiveFloat = 1.0,
    ):
        super().__init__(spec)
        channels, height, width_of_image = spec.shape
        if height % patch or width_of_image % patch:
            raise ValueError(f"patch={patch} must divide the sides of the images, {height}x{width_of_image}")
        self.patch, self.latent_dim, self.summary = patch, width, summary
        self.num_patches = (height // patch) * (width_of_image // patch)
        self.num_shown = max(1, round((1 - mask_ratio) * self.num_patches))
        if self.num_shown == self.num_patches:
            raise ValueError(f"mask_ratio={mask_ratio} hides none of {self.num_patches} patches: choose a larger one")
        patch_dim = channels * patch**2
        self.patch_embedding = nn.Linear(patch_dim, width)
        self.class_token = nn.Parameter(0.02 * torch.randn(width))
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(0.02 * torch.randn(self.num_patches, width))
        self.decoder_positions = nn.Parameter(0.02 * torch.randn(self.num_patches, width))
        self.encoder = Encoder(width=width, depth=depth, heads=heads)
        self.decoder = Encoder(width=width, depth=decoder_depth, heads=heads)
        self.head = nn.Linear(width, patch_dim)
        self.codes = CodeMemory(width)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        patches = to_patches(to_unit(batch["image"], self.spec.value_range), self.patch)  # (B, T, P)
        order = self.order(batch.random)
        code, shown = self.see(patches, order[:, : self.num_shown])
        self.codes.update(code)
        hidden = self.hidden_error(patches, order, code, shown).mean()
        whole = (self.fill_in(code) - patches).square().mean()
        return hidden + self.summary * whole, {"hidden_error": hidden, "summary_error": whole}

    def order(self, random: RowRandom) -> Tensor:
        """(B, T): the patches in an order of chance, those shown first."""
        return random.uniform(self.num_patches).argsort(1)

    def see(self, patches: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The class token (B, width) and the features (B, K, width) of the patches at `places` (B, K), seen alone."""
        tokens = take(self.patch_embedding(patches) + self.positions, places)
        start = self.class_token.expand(len(patches), 1, -1)
        features = self.encoder(torch.cat([start, tokens], dim=1))
        return features[:, 0], features[:, 1:]

    def fill_in(self, code: Tensor, shown: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """All patches (B, T, P), about in [0, 1], from the class token and what was seen at `places`, if anything."""
        tokens = self.mask_token.expand(len(code), self.num_patches, -1)
        if shown is not None:
            tokens = put(shown.to(tokens.dtype), places, tokens)
        tokens = torch.cat([code.unsqueeze(1), tokens + self.decoder_positions], dim=1)
        return self.head(self.decoder(tokens)[:, 1:]).float()

    def hidden_error(self, patches: Tensor, order: Tensor, code: Tensor, shown: Tensor) -> Tensor:
        """Squared error of each example's hidden patches, (B,)."""
        filled = self.fill_in(code, shown, order[:, : self.num_shown])
        hidden = order[:, self.num_shown :]
        return (take(filled, hidden) - take(patches, hidden)).square().mean((1, 2))

    def sample(self, random: RowRandom, *, latent: Literal["gmm", "gaussian", "flow", "prior"] = "gmm") -> Tensor:
        """Images filled in from class tokens alone, drawn from what is fitted to those of training."""
        return self.decode(self.codes.draw(random, latent))

    def draw_latent(self, random: RowRandom) -> Tensor:
        return self.codes.draw(random, "gmm")

    def decode(self, latent: Tensor) -> Tensor:
        return self._to_image(self.fill_in(latent))

    def encode(self, x: Tensor) -> Tensor:
        """The class token of the whole image, nothing hidden."""
        patches = to_patches(to_unit(x, self.spec.value_range), self.patch)
        everything = torch.arange(self.num_patches, device=x.device).expand(len(x), -1)
        return self.see(patches, everything)[0]

    def evaluate(self, batch: Batch) -> Metrics:
        patches = to_patches(to_unit(batch["image"], self.spec.value_range), self.patch)
        order = self.order(batch.random)
        code, shown = self.see(patches, order[:, : self.num_shown])
        whole = (self.fill_in(code) - patches).square().mean((1, 2))
        return {"hidden_error": self.hidden_error(patches, order, code, shown), "summary_error": whole}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Triples: what was shown, what was filled in, the image."""
        patches = to_patches(to_unit(batch["image"], self.spec.value_range), self.patch)
        places = self.order(batch.random)[:, : self.num_shown]
        code, shown = self.see(patches, places)
        seen = put(take(patches, places), places, torch.full_like(patches, 0.5))
        filled = put(take(patches, places), places, self.fill_in(code, shown, places))
        return {"filled_in": side_by_side(*(self._to_image(part) for part in (seen, filled, patches)))}

    def _to_image(self, patches: Tensor) -> Tensor:
        image = from_patches(patches, self.patch, self.spec.shape[1])
        return from_unit(image.clamp(0, 1), self.spec.value_range)
