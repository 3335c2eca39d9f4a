"""A U-Net of 2.6 million parameters that denoises MNIST: a training step of 32 images, 16 samples of 10 DDIM steps.

Beside `genai train model=ddpm dataset=mnist model.depth=3`: denoising-diffusion-pytorch with the U-Net of its README at
dim 32, whose number of parameters ours comes to within 2 %. The networks differ: ours begins at half the resolution,
adds where the other concatenates, and has attention at the lowest level alone (genai_cli/nn/unet.py).
"""

from functools import partial

import torch

from benchmarks import lucid_ddpm, ours
from benchmarks.report import Goal, arguments, machine, write
from benchmarks.turns import Timing, Turns, ratio, rows, take_turns
from genai_cli.data.base import Spec
from genai_cli.models.ddpm import DDPM
from genai_cli.nn.random import SampleRandom

TRAIN_BATCH, SAMPLE_BATCH, SAMPLING_STEPS = 32, 16, 10
STEPS_A_TURN = 5


def train_ours(turns: Turns) -> None:
    ours.contend(turns, "ddpm", f"train.batch_size={TRAIN_BATCH}", "model.depth=3", "device.name=cpu")


@torch.no_grad()
def sample_ours(turns: Turns) -> None:
    """A step is a batch of samples, as `genai sample run=DIR steps=10` draws it."""
    model = DDPM(Spec("image", (1, 28, 28), (-1.0, 1.0)), depth=3).eval()
    turns.ready(parameters=ours.count_parameters(model))
    while True:
        model.sample(SampleRandom(0, range(SAMPLE_BATCH)), solver="ddim", steps=SAMPLING_STEPS)
        turns.step_done()


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    training, sampling = {"genai, training step": train_ours}, {"genai, 16 samples": sample_ours}
    unavailable = lucid_ddpm.install()
    if unavailable is None:
        peer = "denoising-diffusion-pytorch"
        training[f"{peer}, training step"] = partial(lucid_ddpm.train, batch_size=TRAIN_BATCH)
        sampling[f"{peer}, 16 samples"] = partial(
            lucid_ddpm.sample, batch_size=SAMPLE_BATCH, sampling_steps=SAMPLING_STEPS
        )
    timings = [
        take_turns(contenders, busy=options.busy, rounds=options.rounds, steps=STEPS_A_TURN)
        for contenders in (training, sampling)
    ]
    goals = []
    if unavailable is None:
        goals = [
            Goal("training: denoising-diffusion-pytorch / genai", slower_over_faster(timings[0]), at_least=1.2),
            Goal("sampling: denoising-diffusion-pytorch / genai", slower_over_faster(timings[1]), at_least=1.5),
        ]
    write("unet_ddpm", __doc__, [*rows(timings[0]), *rows(timings[1])], goals, before, notes=unavailable)


def slower_over_faster(timings: dict[str, Timing]) -> float:
    """Of the two contenders, at nearly the same number of parameters."""
    genai, peer = timings.values()
    assert abs(genai.parameters / peer.parameters - 1) < 0.02
    return ratio(peer, genai)


if __name__ == "__main__":
    main()
