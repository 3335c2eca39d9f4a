"""A small language model of the codes of images: p(codes) as a product over positions, in the order of a page."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_cli.nn.random import RowRandom
from genai_cli.nn.transformer import Transformer


class CodePrior(nn.Module):
    """A causal transformer over sequences of `length` codes below `num_codes`."""

    def __init__(self, num_codes: int, length: int, *, width: int, depth: int, heads: int):
        super().__init__()
        self.num_codes, self.length = num_codes, length
        self.embedding = nn.Embedding(num_codes + 1, width)  # the last one begins every sequence
        self.transformer = Transformer(
            context=length, width=width, depth=depth, heads=heads, positions="learned", activation="gelu"
        )
        self.head = nn.Linear(width, num_codes)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def nll(self, codes: Tensor) -> Tensor:
        """-log p in nats, (B, T) int64 to (B,)."""
        before = F.pad(codes[:, :-1], (1, 0), value=self.num_codes)  # (B, T)
        logits = self.head(self.transformer(self.embedding(before))).float()  # (B, T, K)
        return F.cross_entropy(logits.transpose(1, 2), codes, reduction="none").sum(1)

    def draw(self, random: RowRandom, *, temperature: float = 1.0) -> Tensor:
        """(random.size, T) int64."""
        codes = torch.full((random.size, self.length + 1), self.num_codes, device=random.device)
        caches = self.transformer.new_caches()
        for now in range(self.length):
            features = self.transformer(self.embedding(codes[:, now : now + 1]), caches)
            logits = self.head(features[:, -1]).float()  # (B, K)
            codes[:, now + 1] = random.categorical(logits / temperature)
        return codes[:, 1:]
