"""The VAE of two perceptrons, 784-400-20-400-784, batches of 128, Adam at 1e-3.

Beside `genai train model=vae dataset=mnist`: the loop of the well-known PyTorch example (a DataLoader over
torchvision's MNIST, an Adam without options, the loss read at every step) and the training pipeline of pythae.
The same architecture and the same number of parameters for all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import ours, pythae_vae
from benchmarks.digits import loader
from benchmarks.report import Goal, arguments, machine, write
from benchmarks.turns import Turns, ratio, rows, take_turns

BATCH_SIZE = 128
PARAMETERS = 784 * 400 + 400 + 400 * 40 + 40 + 20 * 400 + 400 + 400 * 784 + 784


class PlainVAE(nn.Module):
    """As one would write it for a tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 400)
        self.mean = nn.Linear(400, 20)
        self.log_variance = nn.Linear(400, 20)
        self.expand = nn.Linear(20, 400)
        self.pixels = nn.Linear(400, 784)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = F.relu(self.hidden(x))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        std = torch.exp(0.5 * log_variance)
        z = mean + std * torch.randn_like(std)
        return torch.sigmoid(self.pixels(F.relu(self.expand(z)))), mean, log_variance


def train_plain(turns: Turns) -> None:
    model = PlainVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = loader(BATCH_SIZE)
    turns.ready(parameters=ours.count_parameters(model))
    model.train()
    total = 0.0
    while True:
        for number, (images, _) in enumerate(batches):
            x = images.view(-1, 784)  # (B, D), in [0, 1]
            optimizer.zero_grad()
            reconstruction, mean, log_variance = model(x)
            cross_entropy = F.binary_cross_entropy(reconstruction, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            loss = cross_entropy + kl
            loss.backward()
            total += loss.item()
            optimizer.step()
            if number % 10 == 0:
                print(f"{number * BATCH_SIZE} of {len(batches.dataset)}  loss {loss.item() / BATCH_SIZE:.3f}")
            turns.step_done()


def train_ours(turns: Turns) -> None:
    ours.contend(turns, "vae", f"train.batch_size={BATCH_SIZE}")


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    contenders = {"genai": train_ours, "plain loop": train_plain}
    unavailable = pythae_vae.install()
    if unavailable is None:
        contenders["pythae"] = pythae_vae.train
    timings = take_turns(contenders, busy=options.busy, rounds=options.rounds)
    assert {timing.parameters for timing in timings.values()} == {PARAMETERS}
    goals = [Goal("plain loop / genai", ratio(timings["plain loop"], timings["genai"]), at_least=3)]
    if unavailable is None:
        goals.append(Goal("pythae / genai", ratio(timings["pythae"], timings["genai"]), at_least=2))
    write("mlp_vae", __doc__, rows(timings), goals, before, notes=unavailable)


if __name__ == "__main__":
    main()
