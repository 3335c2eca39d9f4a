"""The convolutional GAN: z of 100, maps of 7x7x128 and 14x14x64, images of 28x28 and back, batches of 64, Adam at 2e-4.

Beside `genai train model=dcgan dataset=mnist`: the loop of the well-known PyTorch scripts (a DataLoader with ToTensor
and Normalize, two Adams without options, both losses read and printed at every step). Its generator enlarges the
customary way, by nearest neighbours before a 3x3 convolution, between maps of the same sides and channels; ours holds
such a map as one transposed 4x4 convolution (tests/nn/test_conv.py), hence its other number of parameters. The
discriminators are the same.
"""

import torch
from torch import nn
from torchvision import transforms

from benchmarks import ours
from benchmarks.digits import loader
from benchmarks.report import Goal, arguments, machine, write
from benchmarks.turns import Turns, ratio, rows, take_turns

BATCH_SIZE, LATENT_DIM, STEPS = 64, 100, 20


def build_generator() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(LATENT_DIM, 128 * 7 * 7), nn.Unflatten(1, (128, 7, 7)), nn.BatchNorm2d(128), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(128, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(64, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


def build_discriminator() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(128 * 7 * 7, 1), nn.Sigmoid(),
    )  # fmt: skip


def train_plain(turns: Turns) -> None:
    generator, discriminator = build_generator(), build_discriminator()
    adversarial_loss = nn.BCELoss()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    batches = loader(BATCH_SIZE, transforms.Normalize([0.5], [0.5]))
    turns.ready(parameters=ours.count_parameters(generator) + ours.count_parameters(discriminator))
    while True:
        for number, (real, _) in enumerate(batches):  # (B, 1, 28, 28), in [-1, 1]
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
    ours.contend(turns, "dcgan", f"train.batch_size={BATCH_SIZE}")


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    contenders = {"genai": train_ours, "plain loop": train_plain}
    timings = take_turns(contenders, busy=options.busy, rounds=options.rounds, steps=STEPS)
    goals = [Goal("plain loop / genai", ratio(timings["plain loop"], timings["genai"]), at_least=2.5)]
    write("dcgan", __doc__, rows(timings), goals, before)


if __name__ == "__main__":
    main()
