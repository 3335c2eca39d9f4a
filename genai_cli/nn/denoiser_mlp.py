"""A denoiser of points and series: a residual perceptron that is told the time. What a U-Net is to images."""

from torch import Tensor, nn

from genai_cli.nn.embeddings import fourier_features

NUM_FREQUENCIES = 5  # of a coordinate: periods from 8 down to 1/2, where the data are of the size of the noise


class DenoiserMLP(nn.Module):
    """D numbers (B, ...) and conditions (B, E) to (B, ...). `depth` residual blocks of `width` units; zero at first."""

    def __init__(self, data_dim: int, *, condition_dim: int, width: int = 128, depth: int = 4, dropout: float = 0.0):
        super().__init__()
        self.stem = nn.Linear(data_dim * (1 + 2 * NUM_FREQUENCIES), width)
        self.blocks = nn.ModuleList(ResidualBlock(width, condition_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, data_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.stem(fourier_features(x.flatten(1), NUM_FREQUENCIES))  # (B, width)
        for block in self.blocks:
            h = block(h, condition)
        output = self.head(self.norm(h))  # (B, D)
        return output if x.dim() == 2 else output.view(x.shape).clone()  # no view: FSDP2 hooks what is returned


class ResidualBlock(nn.Module):
    """x + f(x, condition), and f is zero before training."""

    def __init__(self, width: int, condition_dim: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.condition = nn.Linear(condition_dim, width)
        self.activation = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.activation(self.inner(self.norm(x)) + self.condition(condition))
        return x + self.outer(self.dropout(h))
