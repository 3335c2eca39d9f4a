"""A GPT of 4 layers, 4 heads and 128 features on characters: a training step of 12 x 64, and 100 tokens drawn singly.

Beside `genai train model=gpt dataset=text`: a plain loop in the manner of nanoGPT, and GPT-2 of Hugging Face
transformers with its `Trainer`; beside `genai sample`, its `generate`, at batch 1. Weights are untrained: speed does
not depend on them.
"""

from functools import partial

import torch

from benchmarks import ours, plain_gpt, transformers_gpt2
from benchmarks.report import Goal, arguments, machine, write
from benchmarks.turns import Turns, ratio, rows, take_turns
from genai_cli.data.base import Spec
from genai_cli.data.text import Text
from genai_cli.models.gpt import GPT
from genai_cli.nn.random import SampleRandom

CONTEXT, BATCH_SIZE, DRAWN = 64, 12, 100
SAMPLE_CONTEXT = 128
STEPS_A_TURN, SAMPLES_A_TURN = 30, 3


def train_ours(turns: Turns) -> None:
    size = [f"dataset.length={CONTEXT}", f"train.batch_size={BATCH_SIZE}", "device.name=cpu"]
    ours.contend(turns, "gpt", *size, dataset="text")


def sample_ours(turns: Turns, *, vocabulary: int) -> None:
    """A step is a sample, as `genai sample run=DIR num_samples=1 length=100` draws it."""
    model = GPT(Spec("text", (SAMPLE_CONTEXT,), vocabulary_size=vocabulary)).eval()
    turns.ready(parameters=ours.count_parameters(model))
    while True:
        model.sample(SampleRandom(0, [0]), length=DRAWN)
        turns.step_done()


def main() -> None:
    options = arguments(__doc__)
    before = machine(busy=options.busy)
    data = Text(length=CONTEXT)
    size = {"vocabulary": data.spec.vocabulary_size, "context": CONTEXT, "batch_size": BATCH_SIZE}
    size["text"] = data.load("train").tokens.long()
    training = {"genai, training step": train_ours, "plain loop, training step": partial(plain_gpt.train, **size)}
    sampling = {"genai, 100 tokens": partial(sample_ours, vocabulary=size["vocabulary"])}
    unavailable = transformers_gpt2.unavailable()
    if unavailable is None:
        training["transformers Trainer, training step"] = partial(transformers_gpt2.train, **size)
        drawn = {"vocabulary": size["vocabulary"], "context": SAMPLE_CONTEXT, "length": DRAWN}
        sampling["transformers.generate, 100 tokens"] = partial(transformers_gpt2.generate, **drawn)
    counts = {"busy": options.busy, "rounds": options.rounds}
    steps = list(take_turns(training, steps=STEPS_A_TURN, **counts).items())
    samples = list(take_turns(sampling, steps=SAMPLES_A_TURN, **counts).items())
    goals = [Goal("training: plain loop / genai", ratio(steps[1][1], steps[0][1]), at_least=1.05)]
    if unavailable is None:
        goals += [
            Goal("training: transformers Trainer / genai", ratio(steps[2][1], steps[0][1]), at_least=1.45),
            Goal("generation: transformers.generate / genai", ratio(samples[1][1], samples[0][1]), at_least=4),
        ]
    write("gpt", __doc__, [*rows(dict(steps)), *rows(dict(samples))], goals, before, notes=unavailable)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
