"""A U-Net of 2.7 million parameters that denoises MNIST: a training step of 32 images, 16 samples of 10 DDIM steps.

Beside `genai train model=ddpm dataset=mnist`: denoising-diffusion-pytorch with the U-Net of its README at dim 32, and
diffusers' UNet2DModel with the same channels. `genai` is `model.depth=3`, the preset's network with as many parameters
as theirs: it begins at half the resolution. `genai, full resolution` is `model.patch=1 model.levels=3 model.width=32
model.depth=3`, with the channels of both at the resolutions of both (32 at 28x28, 64 at 14x14, 128 at 7x7) and
attention at the lowest. What is left of a difference: ours adds on the way up where they concatenate, and
denoising-diffusion-pytorch has a linear attention at the upper levels. Parameters are equal to 8 %; the arithmetic
of a step is given beside its share of the machine's ceiling, measured between the same turns.
"""

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import denoising, diffusers_unet, lucid_ddpm, ours
from benchmarks.report import Goal, arguments, machine, row, write
from benchmarks.turns import Contender, Timing, Turns, ratio, rows, take_turns
from genai_cli.data.base import Spec
from genai_cli.models.ddpm import DDPM
from genai_cli.nn.random import SampleRandom

TRAIN_BATCH, SAMPLE_BATCH, SAMPLING_STEPS = 32, 16, 10
STEPS_A_TURN = 3
OURS = {
    "genai": {"depth": 3},
    "genai, full resolution": {"patch": 1, "levels": 3, "width": 32, "depth": 3},
}
PEERS = {"denoising-diffusion-pytorch": lucid_ddpm, "diffusers": diffusers_unet}


def train_ours(turns: Turns, size: Mapping[str, int]) -> None:
    options = [f"model.{key}={value}" for key, value in size.items()]
    ours.contend(turns, "ddpm", f"train.batch_size={TRAIN_BATCH}", *options, "device.name=cpu")


@torch.no_grad()
def sample_ours(turns: Turns, size: Mapping[str, int]) -> None:
    """A step is a batch of samples, as `genai sample run=DIR steps=10` draws it."""
    model = build_ours(size).eval()
    turns.ready(parameters=ours.count_parameters(model))
    while True:
        model.sample(SampleRandom(0, range(SAMPLE_BATCH)), solver="ddim", steps=SAMPLING_STEPS)
        turns.step_done()


def build_ours(size: Mapping[str, int]) -> DDPM:
    return DDPM(Spec("image", (1, 28, 28), (-1.0, 1.0)), **size)


def network_pass(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network of a contender, and what it is given for one image."""
    if name in PEERS:
        return PEERS[name].network_pass()
    return build_ours(OURS[name]).network, (torch.zeros(1, 1, 28, 28), torch.zeros(1))


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    missing = {name: words for name, peer in PEERS.items() if (words := peer.install()) is not None}
    peers = {name: peer for name, peer in PEERS.items() if name not in missing}
    training: dict[str, Contender] = {name: partial(train_ours, size=size) for name, size in OURS.items()}
    sampling: dict[str, Contender] = {name: partial(sample_ours, size=size) for name, size in OURS.items()}
    for name, peer in peers.items():
        training[name] = partial(peer.train, batch_size=TRAIN_BATCH)
        sampling[name] = partial(peer.sample, batch_size=SAMPLE_BATCH, sampling_steps=SAMPLING_STEPS)
    counts = {"busy": options.busy, "rounds": options.rounds, "steps": STEPS_A_TURN}
    steps = take_turns({**training, **denoising.CEILINGS}, **counts)
    samples = take_turns({**sampling, **denoising.CEILINGS}, **counts)
    table = [*told(steps, "a training step", TRAIN_BATCH), *told(samples, "16 samples", SAMPLE_BATCH * SAMPLING_STEPS)]
    goals = [
        *beside("training", steps, list(peers), at_least=1.2),
        *beside("sampling", samples, list(peers), at_least=1.5),
    ]
    write("unet_ddpm", __doc__, table, goals, before, notes=" ".join(missing.values()) or None)


def told(timings: dict[str, Timing], what: str, images: int) -> list[dict[str, Any]]:
    """Rows: the time of each contender, the ceilings, and what share of the higher one each contender reaches."""
    ceilings = {
        name: denoising.gflops(timings[name], work)
        for name, work in denoising.CEILING_FLOPS.items()
    }  # fmt: skip
    contenders = {name: timing for name, timing in timings.items() if name not in ceilings}
    table = rows({f"{name}: {what}": timing for name, timing in contenders.items()})
    table += [row(f"{name}, in fp32", speeds, unit="GFLOP/s") for name, speeds in ceilings.items()]
    highest = max(ceilings.values(), key=median)  # the products of torch.mm may be slower than convolutions
    for name, timing in contenders.items():
        work = images * denoising.flops(*network_pass(name), with_backward=what == "a training step")
        words = f"{name}, {timing.parameters / 1e6:.2f} M parameters, {work / 1e9:.3g} GFLOP: share of the ceiling"
        table.append(row(words, denoising.shares(timing, work, highest), unit="%"))
    return table


def beside(what: str, timings: dict[str, Timing], peers: list[str], *, at_least: float) -> list[Goal]:
    """Of each network of ours: how many times faster it is than the fastest of the peers."""
    if not peers:
        return []
    goals = []
    for name in OURS:
        assert all(abs(timings[name].parameters / timings[peer].parameters - 1) < 0.08 for peer in peers)
        fastest = min(peers, key=lambda peer: ratio(timings[peer], timings[name]))
        goals.append(Goal(f"{what}: {fastest} / {name}", ratio(timings[fastest], timings[name]), at_least=at_least))
    return goals


if __name__ == "__main__":
    main()
