"""A denoiser of points: a residual multilayer perceptron that is told the time. What a U-Net is to images."""

from torch import Tensor, nn

from genai_cli.nn.embeddings import TimeEmbedding, fourier_features

NUM_FREQUENCIES = 5  # of a coordinate: periods from 8 down to 1/2, where the data are of the size of the noise


class DenoiserMLP(nn.Module):
    """(B, D) and a time to (B, D). `depth` residual blocks of `width` units; zero before training."""

    def __init__(self, data_dim: int, *, width: int = 128, depth: int = 3, dropout: float = 0.0):
        super().__init__()
        self.time = TimeEmbedding(width, width)
        self.stem = nn.Linear(data_dim * (1 + 2 * NUM_FREQUENCIES), width)
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, data_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)  # (B, width)
        h = self.stem(fourier_features(x, NUM_FREQUENCIES))  # (B, width)
        for block in self.blocks:
            h = block(h, time)
        return self.head(self.norm(h))


class ResidualBlock(nn.Module):
    """x + f(x, time), and f is zero before training."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.time = nn.Linear(width, width)
        self.activation = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.activation(self.inner(self.norm(x)) + self.time(time))
        return x + self.outer(self.dropout(h))
