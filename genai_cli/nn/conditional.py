"""Layers that know the class of each row: batch normalisation by class, and the projection of features on a class."""

from torch import Tensor, nn

from genai_cli.nn.norm import BatchNorm


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with a scale and a shift of each class (de Vries et al. 2017, arXiv:1707.00683).

    Statistics are of the whole batch. A class's scale and shift are what all share plus its own. These begin at random:
    from zero, at the rates of a GAN, classes would take thousands of steps to differ as much.
    """

    def __init__(self, num_channels: int, num_classes: int):
        super().__init__()
        self.norm = BatchNorm(num_channels)
        self.own = nn.Embedding(num_classes, 2 * num_channels)
        nn.init.normal_(self.own.weight, std=0.5)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, C, ...) and classes (B,), or shares of each class (B, K)."""
        own = label @ self.own.weight if label.is_floating_point() else self.own(label)
        scale, shift = own[(...,) + (None,) * (x.dim() - 2)].chunk(2, dim=1)  # (B, C, 1, ...) each
        h = self.norm(x)
        return h + (scale * h + shift)


class Projection(nn.Module):
    """<v_y, phi>: how well features speak for a class (Miyato & Koyama 2018, arXiv:1802.05637)."""

    def __init__(self, num_features: int, num_classes: int):
        super().__init__()
        self.classes = nn.Embedding(num_classes, num_features)
        nn.init.normal_(self.classes.weight, std=0.02)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """(B, F) and (B,) to (B, 1)."""
        return (self.classes(label) * features).sum(1, keepdim=True)
