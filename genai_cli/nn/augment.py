"""Augmentations of what a discriminator sees, data and fakes alike, through which the generator's gradient flows.

Applied to both, they cannot teach the generator augmented images as an augmentation of the data alone would. Each row
draws from its own random numbers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import sum_over_ranks


class NoAugmentation(nn.Module):
    """Images as they are."""

    def forward(self, images: Tensor, random: RowRandom) -> Tensor:
        return images


class DiffAugment(nn.Module):
    """Colour, translation and cutout, always all three (Zhao et al. 2020, arXiv:2006.10738)."""

    def forward(self, images: Tensor, random: RowRandom) -> Tensor:
        """(B, C, H, W) in [-1, 1] to the same shape, no longer within that range."""
        images = jitter_colour(images, random.uniform(3) - 0.5)
        height, width = images.shape[2:]
        reach = torch.tensor([height // 8, width // 8], device=images.device)  # an eighth of each side
        images = translate(images, _uniform_integers(random.uniform(2), -reach, reach))
        size = (height // 2, width // 2)
        # Its centre is anywhere in the image, so that it may stand half outside.
        return cut_out(images, _uniform_integers(random.uniform(2), 0 * reach, torch.tensor([height, width])), size)


def _uniform_integers(uniform: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Uniform in [0, 1), (B, 2), to integers from `low` to `high`, both included."""
    low, high = low.to(uniform.device), high.to(uniform.device)
    return low + (uniform * (high - low + 1)).long().minimum(high - low)


def jitter_colour(images: Tensor, amount: Tensor) -> Tensor:
    """Brightness, saturation and contrast changed by `amount` (B, 3), each in [-0.5, 0.5).

    An image is moved by the first, its colours scaled about its grey by 0 to 2, all about its mean by 0.5 to 1.5.
    """
    brightness, saturation, contrast = amount.to(images.dtype)[:, :, None, None, None].unbind(1)  # each (B, 1, 1, 1)
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2 * (saturation + 0.5))
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 1)


def translate(images: Tensor, shift: Tensor) -> Tensor:
    """Images moved by `shift` (B, 2) pixels down and right; what comes in from outside is 0."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device) - shift[:, :1]  # (B, H): the row that each one comes from
    x = torch.arange(width, device=images.device) - shift[:, 1:]
    is_inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]  # (B, H, W)
    row = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[row, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
    return torch.where(is_inside[..., None], moved, 0).permute(0, 3, 1, 2)


def cut_out(images: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros in a window of `size` around `centre` (B, 2)."""
    y = torch.arange(images.shape[2], device=images.device) - (centre[:, :1] - size[0] // 2)  # (B, H), in the window
    x = torch.arange(images.shape[3], device=images.device) - (centre[:, 1:] - size[1] // 2)
    is_cut = ((y >= 0) & (y < size[0]))[:, :, None] & ((x >= 0) & (x < size[1]))[:, None, :]  # (B, H, W)
    return images.masked_fill(is_cut[:, None], 0)


class AdaptiveAugment(nn.Module):
    """Each of many transformations with probability p, which follows how far D overfits (Karras et al. 2020).

    arXiv:2006.06676. The heuristic is r_t = E sign(D(x)) on data (Eq. 1), D measured from where it is undecided: 0
    where D cannot tell, 1 where it knows every training example. Every four steps p moves up if r_t is above `target`,
    else down, by as much as would take it from 0 to 1 in `images_to_full` images. The controller is in buffers: it is
    saved, and the same on every rank.

    Less than the paper's pipeline (Appendix B): geometry is interpolated bilinearly without its wavelet filter, and
    hue stays.
    """

    EVERY = 4  # steps between two moves of p

    p: Tensor  # ()
    signs: Tensor  # (2,): the sum of sign(D(x)) and the number of examples since p last moved

    def __init__(self, *, target: float = 0.6, images_to_full: int = 500_000):
        super().__init__()
        self.target, self.images_to_full = target, images_to_full
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(2))

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Take note of what D says of data, above 0 where it knows them as such, on all ranks."""
        count = real_logits.new_tensor(float(real_logits.numel()), dtype=torch.float32)
        self.signs += sum_over_ranks(torch.stack([real_logits.float().sign().sum(), count]))

    @torch.no_grad()
    def adapt(self, step_number: int) -> None:
        """Before a step: move p if it is time."""
        if step_number % self.EVERY or not self.signs[1] > 0:
            return
        total, count = self.signs.unbind()
        self.p += (total / count - self.target).sign() * count / self.images_to_full
        self.p.clamp_(0, 1)
        self.signs.zero_()

    def forward(self, images: Tensor, random: RowRandom) -> Tensor:
        """(B, C, H, W) in [-1, 1] to the same shape, no longer within that range."""
        images = move_and_turn(images, random, self.p)
        return change_colour(images, random, self.p)


def move_and_turn(images: Tensor, random: RowRandom, p: Tensor) -> Tensor:
    """Mirror, quarter turns, shifts, sizes and rotations of Appendix B, each with probability p, as one resampling.

    What comes in from outside is the reflection of the inside.
    """
    chance, amount = random.uniform(8), random.uniform(6)  # (B, 8), (B, 6)
    noise = random.normal(4)  # (B, 4)
    happens = (chance < p).float()
    any_angle = (chance < 1 - (1 - p).sqrt()).float()  # two rotations, one of which happens with probability p

    mirror = 1 - 2 * happens[:, 0] * (amount[:, 0] < 0.5)
    matrix = _scaling(mirror, torch.ones_like(mirror))  # (B, 3, 3), from output to input coordinates in [-1, 1]
    matrix = matrix @ _rotation(happens[:, 1] * (amount[:, 1] * 4).floor() * (math.pi / 2))
    matrix = matrix @ _shift(0.25 * happens[:, 2:3] * (2 * amount[:, 4:] - 1))  # up to 1/8 of the side
    size = torch.exp2(0.2 * noise[:, 0] * happens[:, 3])
    matrix = matrix @ _scaling(size, size)
    matrix = matrix @ _rotation(math.pi * (2 * amount[:, 2] - 1) * any_angle[:, 4])
    stretch = torch.exp2(0.2 * noise[:, 1] * happens[:, 5])
    matrix = matrix @ _scaling(stretch, 1 / stretch)
    matrix = matrix @ _rotation(math.pi * (2 * amount[:, 3] - 1) * any_angle[:, 6])
    matrix = matrix @ _shift(2 * 0.125 * noise[:, 2:] * happens[:, 7:])
    grid = F.affine_grid(matrix[:, :2], list(images.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="reflection", align_corners=False)


def change_colour(images: Tensor, random: RowRandom, p: Tensor) -> Tensor:
    """Brightness, contrast, inverted lightness and, of colour images, saturation (Appendix B), with probability p."""
    happens, noise = (random.uniform(4) < p).float(), random.normal(3)  # (B, 4), (B, 3)
    sign = (random.uniform(1) < 0.5).float()  # (B, 1)
    per_image = (slice(None), None, None, None)
    images = images + (0.2 * noise[:, 0] * happens[:, 0])[per_image]
    images = images * torch.exp2(0.5 * noise[:, 1] * happens[:, 1])[per_image]
    if images.shape[1] == 1:
        return images * (1 - 2 * happens[:, 2] * sign[:, 0])[per_image]
    luma = images.mean(1, keepdim=True)  # the projection on the axis of greys
    images = images - (2 * happens[:, 2] * sign[:, 0])[per_image] * luma
    luma = images.mean(1, keepdim=True)
    return torch.lerp(luma, images, torch.exp2(noise[:, 2] * happens[:, 3])[per_image])


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    """(B,) twice to (B, 3, 3)."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def _rotation(angle: Tensor) -> Tensor:
    """(B,) radians to (B, 3, 3)."""
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1).unflatten(1, (3, 3))


def _shift(by: Tensor) -> Tensor:
    """(B, 2) to (B, 3, 3)."""
    matrix = torch.eye(3, device=by.device).expand(len(by), 3, 3).clone()
    matrix[:, :2, 2] = by
    return matrix


AUGMENTATIONS: dict[str, type[nn.Module]] = {
    "none": NoAugmentation,
    "diffaug": DiffAugment,
    "ada": AdaptiveAugment,
}
