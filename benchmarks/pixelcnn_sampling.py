"""Drawing 28 x 28 images from a gated PixelCNN of 7 layers of 32 features, 64 at a time.

`genai sample`'s way, in which every layer remembers what it has computed, beside the usual one: a whole pass for each
of the 784 pixels. Both draw the same images (tests/models/test_pixelcnn.py). Seconds for 64 images, of the model alone;
those of the usual way are 784 times the mean of a turn's 8 whole passes.
"""

import statistics
from collections.abc import Callable

import torch

from benchmarks.report import THREADS, Goal, arguments, machine, row, write
from benchmarks.turns import clock
from genai_cli.data.base import Spec
from genai_cli.models.pixelcnn import PixelCNN
from genai_cli.nn.random import SampleRandom

NUM_IMAGES, PIXELS, PASSES = 64, 28 * 28, 8


def main() -> None:
    options = arguments(__doc__)
    began = machine(busy=options.busy)
    torch.set_num_threads(THREADS[options.busy])
    torch.manual_seed(0)
    model = PixelCNN(Spec("image", (1, 28, 28), value_range=(-1.0, 1.0), levels=2)).eval()
    image = torch.randn(NUM_IMAGES, 1, 28, 28).sign()

    def remembered() -> None:
        model.sample(SampleRandom(0, range(NUM_IMAGES)))

    @torch.inference_mode()
    def repeated() -> None:
        for _ in range(PASSES):
            model.network(image)

    seconds = clock(options.busy)
    timings: dict[str, list[float]] = {"genai": [], "a pass for each pixel": []}
    for turn in range(options.rounds + 1):
        ours, theirs = timed(remembered, seconds), timed(repeated, seconds) * PIXELS / PASSES
        if turn > 0:  # after one for nothing
            timings["genai"].append(ours)
            timings["a pass for each pixel"].append(theirs)
    times_faster = statistics.median(
        theirs / ours for ours, theirs in zip(timings["genai"], timings["a pass for each pixel"], strict=True)
    )
    speed = NUM_IMAGES / statistics.median(timings["genai"])
    goals = [
        Goal("a pass for each pixel / genai", times_faster, at_least=20),
        Goal("genai", speed, at_least=60, unit="images/s"),
    ]
    write("pixelcnn_sampling", __doc__, [row(name, times, unit="s") for name, times in timings.items()], goals, began)


def timed(work: Callable[[], None], seconds: Callable[[], float]) -> float:
    start = seconds()
    work()
    return seconds() - start


if __name__ == "__main__":
    main()
