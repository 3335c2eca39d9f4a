"""A U-Net of 2.7 million parameters that denoises MNIST, on a GPU: images a second, and the share of its peak.

`genai` is `genai train model=ddpm dataset=mnist model.depth=3` in full, in float32, with `device.precision=bf16`, and
with `device.compile=true` too, and samples of 50 DDIM steps in the same ways. Beside it diffusers' UNet2DModel and the
U-Net of denoising-diffusion-pytorch (unet_ddpm.py says how alike they are), each under bf16 autocast and compiled.
The peak is that of products of 8192 x 8192 matrices in bf16, measured between the same turns.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks import denoising, ours, unet_ddpm
from benchmarks.report import machine, parser_of, row, write
from benchmarks.turns import Contender, Timing, Turns, take_turns
from genai_cli.nn.random import SampleRandom

SAMPLING_STEPS = 50
STEPS_A_TURN = 20
SIZE = unet_ddpm.OURS["genai"]
WAYS = {  # of our own contenders: name -> overrides
    "genai, fp32": {},
    "genai, bf16": {"precision": "bf16"},
    "genai, bf16 and compiled": {"precision": "bf16", "compile": "true"},
}


def synchronised(device: str) -> Callable[[], float]:
    """The wall clock, once the device has done all that it was given."""

    def seconds() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return seconds


def autocast(device: str, way: Mapping[str, str]) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16) if way.get("precision") == "bf16" else nullcontext()


def train_ours(turns: Turns, *, way: Mapping[str, str], device: str, batch_size: int) -> None:
    turns.clock = synchronised(device)
    size = [f"model.{key}={value}" for key, value in SIZE.items()]
    where = [f"device.name={device}", *(f"device.{key}={value}" for key, value in way.items())]
    ours.contend(turns, "ddpm", f"train.batch_size={batch_size}", *size, *where)


@torch.no_grad()
def sample_ours(turns: Turns, *, way: Mapping[str, str], device: str, batch_size: int, steps: int) -> None:
    turns.clock = synchronised(device)
    model = unet_ddpm.build_ours(SIZE).eval().to(device)
    if "compile" in way:
        model.network.compile()
    turns.ready(parameters=ours.count_parameters(model))
    while True:
        with autocast(device, way):
            model.sample(SampleRandom(0, range(batch_size), device=device), solver="ddim", steps=steps)
        turns.step_done()


def train_peer(turns: Turns, *, name: str, device: str, batch_size: int) -> None:
    """The plain loop: velocity of the cosine schedule, fused AdamW, bf16 autocast, compiled."""
    turns.clock = synchronised(device)
    network, _ = unet_ddpm.network_pass(name)
    network = network.to(device)
    network.compile()
    images = (denoising.digits() / 127.5 - 1).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    turns.ready(parameters=ours.count_parameters(network))
    while True:
        x0 = images[torch.randint(len(images), (batch_size,), device=device)]
        t, noise = torch.rand(batch_size, device=device), torch.randn_like(x0)
        angle = (t * torch.pi / 2)[:, None, None, None]
        with torch.autocast(device, torch.bfloat16):
            velocity = output_of(network, angle.cos() * x0 + angle.sin() * noise, 1000 * t)
        loss = (velocity.float() - (angle.cos() * noise - angle.sin() * x0)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turns.step_done()


@torch.no_grad()
def sample_peer(turns: Turns, *, name: str, device: str, batch_size: int, steps: int) -> None:
    """As many evaluations of the network, without what a package's own pipeline adds."""
    turns.clock = synchronised(device)
    network, _ = unet_ddpm.network_pass(name)
    network = network.eval().to(device)
    network.compile()
    turns.ready(parameters=ours.count_parameters(network))
    while True:
        x = torch.randn(batch_size, 1, 28, 28, device=device)
        for step in range(steps):
            t = torch.full((batch_size,), 1000 * (1 - step / steps), device=device)
            with torch.autocast(device, torch.bfloat16):
                x = x - output_of(network, x, t).float() / steps
        turns.step_done()


def output_of(network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    out = network(*inputs)
    return getattr(out, "sample", out)


def multiply(turns: Turns, *, device: str, side: int) -> None:
    """The peak in bf16. A step is ten products."""
    turns.clock = synchronised(device)
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    out = torch.empty_like(a)
    turns.ready(parameters=0)
    while True:
        for _ in range(10):
            torch.mm(a, b, out=out)
        turns.step_done()


def options_of(words: str) -> argparse.Namespace:
    parser = parser_of(words)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu is for a trial with --tiny")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--tiny", action="store_true", help="four images, two steps: to see that all of it runs")
    return parser.parse_args()


def main() -> None:
    options = options_of(__doc__)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("unet_gpu: torch sees no GPU here; left out (--device cpu --tiny tries the commands)")
        return
    before = machine(busy=False)
    peers = {name: peer for name, peer in unet_ddpm.PEERS.items() if peer.install() is None}
    batch, steps, side = (4, 2, 256) if options.tiny else (options.batch_size, SAMPLING_STEPS, 8192)
    common = {"device": options.device, "batch_size": batch}
    peak: dict[str, Contender] = {"products": partial(multiply, device=options.device, side=side)}
    train = {name: partial(train_ours, way=way, **common) for name, way in WAYS.items()}
    train |= {name: partial(train_peer, name=name, **common) for name in peers}
    sample = {name: partial(sample_ours, way=way, steps=steps, **common) for name, way in WAYS.items()}
    sample |= {name: partial(sample_peer, name=name, steps=steps, **common) for name in peers}
    counts = {"busy": False, "rounds": options.rounds, "steps": 2 if options.tiny else STEPS_A_TURN}
    table = told("training", take_turns(train | peak, **counts), images=batch, passes=batch, side=side)
    table += told("sampling", take_turns(sample | peak, **counts), images=batch, passes=batch * steps, side=side)
    if options.tiny:
        print("\n".join(f"{each['name']}: {each['median']:.3g} {each['unit']}" for each in table))
    else:
        device = torch.cuda.get_device_name()
        write("unet_gpu", __doc__, table, [], before | {"device": device}, notes=f"On one {device}, batch {batch}.")


def told(what: str, timings: dict[str, Timing], *, images: int, passes: int, side: int) -> list[dict[str, Any]]:
    """Rows: images a second of each, and what share of the peak its arithmetic is."""
    peak = denoising.gflops(timings.pop("products"), 20 * side**3)
    table = [row("products of matrices in bf16", peak, unit="GFLOP/s")]
    for name, timing in timings.items():
        speeds = [images / seconds for seconds in timing.seconds]
        of_network = name if name in unet_ddpm.PEERS else "genai"
        work = passes * denoising.flops(*unet_ddpm.network_pass(of_network), with_backward=what == "training")
        table.append(row(f"{what}: {name}", speeds, unit="images/s"))
        table.append(row(f"{what}: {name}, of the peak", denoising.shares(timing, work, peak), unit="%"))
    return table


if __name__ == "__main__":
    main()
