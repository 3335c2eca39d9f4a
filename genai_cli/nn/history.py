"""A pool of earlier fakes, of which a discriminator is shown half (Shrivastava et al. 2017, arXiv:1612.07828, 2.3).

What it learned of fakes of an hour ago it so does not forget; CycleGAN takes 50 images (arXiv:1703.10593, Section 4).
"""

import torch
from torch import Tensor, nn

from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import gather_over_ranks, own_rows


class History(nn.Module):
    """`size` images of `shape`, the same ones on every rank, in the checkpoint; a size of 0 remembers nothing."""

    images: Tensor  # (size, *shape)
    count: Tensor  # () int64, of images that are there

    def __init__(self, size: int, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, fakes: Tensor, random: RowRandom) -> Tensor:
        """(B, *shape): each of `fakes`, or in half of the cases an image of the pool, whose place the fake then takes.

        Until the pool is full every fake is kept there and returned. Rows are taken one after the other, in the order
        of the global batch, so that it makes no difference how many ranks share it.
        """
        size = len(self.images)
        if size == 0:
            return fakes
        everyone = gather_over_ranks(fakes)
        chances = gather_over_ranks(random.uniform(2))  # (R B, 2): whether to exchange, and where
        returned, count = everyone.clone(), int(self.count)
        for i, (toss, place) in enumerate(chances.tolist()):
            if count < size:
                self.images[count] = everyone[i]
                count += 1
            elif toss < 0.5:
                slot = min(int(place * size), size - 1)
                returned[i] = self.images[slot]
                self.images[slot] = everyone[i]
        self.count.fill_(count)
        return own_rows(returned, len(fakes))
