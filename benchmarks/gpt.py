"""A GPT of 4 layers, 4 heads and 128 features on characters: a training step of 12 x 64, and 100 tokens drawn singly.

Beside `genai train model=gpt dataset=text`: a plain loop in the manner of nanoGPT, GPT-2 of Hugging Face transformers
with its `Trainer`, and litgpt's GPT compiled, beside `device.compile=true`; beside `genai sample`, the `generate` of
both, at batch 1. What is compiled is so before the first turn that counts. Weights are untrained: speed does not depend
on them.
"""

from functools import partial

import torch

from benchmarks import litgpt_gpt, ours, plain_gpt, transformers_gpt2
from benchmarks.report import Goal, arguments, machine, write
from benchmarks.turns import Turns, ratio, rows, take_turns
from genai_cli.data.base import Spec
from genai_cli.data.text import Text
from genai_cli.models.gpt import GPT
from genai_cli.nn.random import SampleRandom

CONTEXT, BATCH_SIZE, DRAWN = 64, 12, 100
SAMPLE_CONTEXT = 128
STEPS_A_TURN, SAMPLES_A_TURN = 30, 3
OURS, PLAIN, TRAINER = (f"{name}, training step" for name in ("genai", "plain loop", "transformers Trainer"))
OUR_SAMPLES = "genai, 100 tokens"


def train_ours(turns: Turns, *, compiled: bool = False) -> None:
    size = [f"dataset.length={CONTEXT}", f"train.batch_size={BATCH_SIZE}", "device.name=cpu"]
    ours.contend(turns, "gpt", *size, f"device.compile={compiled}".lower(), dataset="text")


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
    drawn = {"vocabulary": size["vocabulary"], "context": SAMPLE_CONTEXT, "length": DRAWN}
    training = {OURS: train_ours, PLAIN: partial(plain_gpt.train, **size)}
    sampling = {OUR_SAMPLES: partial(sample_ours, vocabulary=size["vocabulary"])}
    compared = {PLAIN: (OURS, 1.05)}  # slow -> fast, and how many times it should be
    missing = [words for words in (transformers_gpt2.unavailable(), litgpt_gpt.unavailable()) if words is not None]
    if transformers_gpt2.unavailable() is None:
        training[TRAINER] = partial(transformers_gpt2.train, **size)
        sampling["transformers.generate, 100 tokens"] = partial(transformers_gpt2.generate, **drawn)
        compared |= {TRAINER: (OURS, 1.45), "transformers.generate, 100 tokens": (OUR_SAMPLES, 4)}
    if litgpt_gpt.unavailable() is None:
        training["genai compiled, training step"] = partial(train_ours, compiled=True)
        training["litgpt compiled, training step"] = partial(litgpt_gpt.train, **size)
        sampling["litgpt generate, 100 tokens"] = partial(litgpt_gpt.generate, **drawn)
        compared |= {
            "litgpt compiled, training step": ("genai compiled, training step", 1.1),
            "litgpt generate, 100 tokens": (OUR_SAMPLES, 2),
        }
    counts = {"busy": options.busy, "rounds": options.rounds}
    timings = take_turns(training, steps=STEPS_A_TURN, **counts) | take_turns(sampling, steps=SAMPLES_A_TURN, **counts)
    goals = [
        Goal(f"{slow} / {fast}", ratio(timings[slow], timings[fast]), at_least=times)
        for slow, (fast, times) in compared.items()
    ]
    write("gpt", __doc__, rows(timings), goals, before, notes="; ".join(missing) or None)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
