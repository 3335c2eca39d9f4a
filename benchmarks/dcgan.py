"""The convolutional GAN of the scripts that everyone copies, on MNIST: batches of 64, Adam at 2e-4.

Its generator takes z of 100 to 7x7x128 maps and enlarges twice, by nearest neighbours before a 3x3 convolution, to
28x28x64 and one more convolution; its discriminator halves the side four times with dropout and batch normalisation.
`script` is that network in the customary loop (a DataLoader with ToTensor and Normalize, two Adams without options,
fakes made once and detached for the discriminator, both losses read and printed at every step). `genai` is
`genai train model=dcgan dataset=mnist` with a network of the same maps put in the place of the preset's, where each
enlargement is one transposed 4x4 convolution, which can hold the same map (tests/nn/test_conv.py), hence its other
number of parameters; the discriminators are the same. As in the script, fakes are made once a step
(`model.fresh_fakes=false`), and the average of the weights is off.
"""

import torch
from torch import nn
from torchvision import transforms

from benchmarks import ours
from benchmarks.digits import loader
from benchmarks.report import Goal, arguments, machine, write
from benchmarks.turns import Turns, ratio, rows, take_turns
from genai_cli.models.dcgan import DCGAN
from genai_cli.nn.conv import doubling
from genai_cli.nn.norm import BatchNorm

BATCH_SIZE, LATENT_DIM, STEPS = 64, 100, 20


def build_generator() -> nn.Sequential:
    """(B, 100) to (B, 1, 28, 28)."""
    return nn.Sequential(
        nn.Linear(LATENT_DIM, 128 * 7 * 7), nn.Unflatten(1, (128, 7, 7)), nn.BatchNorm2d(128),
        nn.Upsample(scale_factor=2), nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2), nn.Conv2d(128, 64, 3, padding=1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


class ChannelsLast(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) as (B, C, H, W), where it lies."""
        return maps.permute(0, 3, 1, 2)


def build_fused_generator() -> nn.Sequential:
    """The same maps, each enlarged by one transposed convolution."""
    return nn.Sequential(
        nn.Linear(LATENT_DIM, 128 * 7 * 7), nn.Unflatten(1, (7, 7, 128)), ChannelsLast(), BatchNorm(128),
        doubling(128, 128), BatchNorm(128), nn.LeakyReLU(0.2),
        doubling(128, 64), BatchNorm(64), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


def build_discriminator(norm: type[nn.Module]) -> nn.Sequential:
    """(B, 1, 28, 28) to logits (B, 1), by way of sides of 14, 7, 4 and 2."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate([(1, 16), (16, 32), (32, 64), (64, 128)]):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25)]
        layers += [norm(outputs)] if number else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 2 * 2, 1))


def train_plain(turns: Turns) -> None:
    generator = build_generator()
    discriminator = nn.Sequential(build_discriminator(nn.BatchNorm2d), nn.Sigmoid())
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
    build = DCGAN.__init__

    def build_network_of_the_script(model: DCGAN, *arguments: object, **options: object) -> None:
        build(model, *arguments, **options)
        model.generator, model.discriminator = build_fused_generator(), build_discriminator(BatchNorm)

    DCGAN.__init__ = build_network_of_the_script
    ours.contend(turns, "dcgan", f"train.batch_size={BATCH_SIZE}", "train.ema=null", "model.fresh_fakes=false")


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    contenders = {"genai": train_ours, "script": train_plain}
    timings = take_turns(contenders, busy=options.busy, rounds=options.rounds, steps=STEPS)
    goals = [Goal("script / genai", ratio(timings["script"], timings["genai"]), at_least=2.5)]
    write("dcgan", __doc__, rows(timings), goals, before)


if __name__ == "__main__":
    main()
