"""The GAN of two perceptrons, 100-256-512-784 and back, batches of 64, Adam at 1e-3 with beta1 = 0.5.

Beside `genai train model=gan dataset=mnist`: the loop of the well-known PyTorch scripts (a DataLoader with ToTensor
and Normalize, two Adams without options, fakes made once and detached for the discriminator, both losses printed at
every step). The same architecture and the same number of parameters for both. As in the scripts, fakes are made once a
step (`model.fresh_fakes=false`), and the average of the generator's weights, which the preset keeps, is off.
"""

import torch
from torch import nn
from torchvision import transforms

from benchmarks import ours
from benchmarks.digits import loader
from benchmarks.report import Goal, arguments, machine, write
from benchmarks.turns import Turns, ratio, rows, take_turns

BATCH_SIZE, LATENT_DIM = 64, 100


def train_plain(turns: Turns) -> None:
    generator = nn.Sequential(
        nn.Linear(LATENT_DIM, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 784), nn.Tanh()
    )
    discriminator = nn.Sequential(
        nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1), nn.Sigmoid()
    )
    adversarial_loss = nn.BCELoss()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    batches = loader(BATCH_SIZE, transforms.Normalize([0.5], [0.5]))
    turns.ready(parameters=ours.count_parameters(generator) + ours.count_parameters(discriminator))
    while True:
        for number, (images, _) in enumerate(batches):
            real = images.view(-1, 784)  # (B, D), in [-1, 1]
            valid, invalid = torch.ones(len(real), 1), torch.zeros(len(real), 1)

            optimizer_g.zero_grad()
            fake = generator(torch.randn(len(real), LATENT_DIM))
            loss_g = adversarial_loss(discriminator(fake), valid)
            loss_g.backward()
            optimizer_g.step()

            optimizer_d.zero_grad()
            real_loss = adversarial_loss(discriminator(real), valid)
            fake_loss = adversarial_loss(discriminator(fake.detach()), invalid)
            loss_d = (real_loss + fake_loss) / 2
            loss_d.backward()
            optimizer_d.step()

            print(f"batch {number} of {len(batches)}  D {loss_d.item():.4f}  G {loss_g.item():.4f}")
            turns.step_done()


def train_ours(turns: Turns) -> None:
    ours.contend(turns, "gan", f"train.batch_size={BATCH_SIZE}", "train.ema=null", "model.fresh_fakes=false")


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    timings = take_turns({"genai": train_ours, "plain loop": train_plain}, busy=options.busy, rounds=options.rounds)
    assert timings["genai"].parameters == timings["plain loop"].parameters
    goals = [Goal("plain loop / genai", ratio(timings["plain loop"], timings["genai"]), at_least=2)]
    write("mlp_gan", __doc__, rows(timings), goals, before)


if __name__ == "__main__":
    main()
