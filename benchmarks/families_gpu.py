"""Two GANs and a VAE on a GPU, as their presets train on MNIST: images a second, and the share of its peak.

`genai train model=NAME dataset=mnist` in full, in float32, with `device.precision=bf16`, with `device.compile=true`
too, and graphed: torch.compile(mode="reduce-overhead"), which replays each pass as one CUDA graph. r3gan's penalties
need a second derivative, which torch.compile does not give: it runs eagerly alone. The peak is that of products of
8192 x 8192 matrices in bf16, measured between the same turns.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import denoising, ours
from benchmarks.report import machine, row, write
from benchmarks.turns import Contender, Timing, Turns, apart, take_turns
from benchmarks.unet_gpu import STEPS_A_TURN, multiply, options_of, synchronised
from genai_cli.engine.step import OptimizerStep
from genai_cli.models.base import GenerativeModel

EAGER = {"fp32": {}, "bf16": {"precision": "bf16"}}
COMPILED = {
    "bf16 and compiled": {"precision": "bf16", "compile": "true"},
    "bf16 and graphed": {"precision": "bf16", "compile": "true", "graphs": "true"},
}
WAYS = {"dcgan": EAGER | COMPILED, "r3gan": EAGER, "vae": EAGER | COMPILED}


class Arithmetic(TorchDispatchMode):
    """Counts as FlopCounterMode does, whose hooks on modules cannot bear the gradient of a gradient."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


class Counted(BaseException):
    """Raised with the arithmetic of a step, past the command that would call an Exception a bug."""


def train(turns: Turns, *, name: str, way: Mapping[str, str], device: str, batch_size: int) -> None:
    turns.clock = synchronised(device)
    if "graphs" in way:
        compile_module = nn.Module.compile
        nn.Module.compile = lambda module: compile_module(module, mode="reduce-overhead")
    where = [f"device.{key}={value}" for key, value in way.items() if key != "graphs"]
    ours.contend(turns, name, f"train.batch_size={batch_size}", f"device.name={device}", *where)


def flops_of_a_step(name: str, batch_size: int) -> int:
    """Of `train_step` in full, all players and penalties, counted on the CPU in the first step."""

    def program(model: GenerativeModel, step: OptimizerStep) -> None:
        with Arithmetic() as counter:
            type(model).uncounted_step(model, step)
        raise Counted(counter.flops)

    model_class = ours.registry.load_model_class(name)
    model_class.uncounted_step = model_class.train_step
    try:
        ours.train(name, f"train.batch_size={batch_size}", "device.name=cpu", step_done=program, program=program)
    except Counted as counted:
        return counted.args[0]


def main() -> None:
    options = options_of(__doc__)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("families_gpu: torch sees no GPU here; left out (--device cpu --tiny tries the commands)")
        return
    before = machine(busy=False)
    batch, side = (4, 256) if options.tiny else (options.batch_size, 8192)
    counts = {"busy": False, "rounds": options.rounds, "steps": 2 if options.tiny else STEPS_A_TURN}
    peak: dict[str, Contender] = {"products": partial(multiply, device=options.device, side=side)}
    table: list[dict[str, Any]] = []
    for name, ways in WAYS.items():
        contenders = {
            f"{name}, {words}": partial(train, name=name, way=way, device=options.device, batch_size=batch)
            for words, way in ways.items()
        }
        work = apart(flops_of_a_step, name, 4, busy=False) / 4 * batch
        table += told(take_turns(contenders | peak, **counts), images=batch, work=work, side=side)
    if options.tiny:
        print("\n".join(f"{each['name']}: {each['median']:.3g} {each['unit']}" for each in table))
    else:
        device = torch.cuda.get_device_name()
        write("families_gpu", __doc__, table, [], before | {"device": device}, notes=f"On one {device}, batch {batch}.")


def told(timings: dict[str, Timing], *, images: int, work: float, side: int) -> list[dict[str, Any]]:
    """Rows: images a second of each, and what share of the peak its arithmetic is."""
    peak = denoising.gflops(timings.pop("products"), 20 * side**3)
    table = []
    for name, timing in timings.items():
        table.append(row(name, [images / seconds for seconds in timing.seconds], unit="images/s"))
        table.append(row(f"{name}, of the peak", denoising.shares(timing, work, peak), unit="%"))
    return table


if __name__ == "__main__":
    main()
