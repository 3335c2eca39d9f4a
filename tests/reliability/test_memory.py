"""T31, T40: where memory runs out, a sentence with remedies; with train.accumulate=auto, smaller parts of a batch."""

import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from genai_cli.engine.checkpoint import load_newest
from tests.reliability.harness import GAN, VAE, Genai, final_files, log_lines
from tests.reliability.test_two_ranks import SGD, run_two

WORDS = ("train", *VAE, "optimizer=sgd", "optimizer.lr=0.01", "train.steps=5")
AUTO = "train.accumulate=auto"


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = load_newest(run / "checkpoints")
    assert newest is not None
    return newest.model


def assert_close(one: Path, other: Path) -> None:
    expected = weights(one)
    for name, tensor in weights(other).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("fault", ["loss.model:oom:3", "gradient.model:oom:3", "data:oom:1"])
def test_out_of_memory_is_exit_5_with_three_hints(genai: Genai, folder: Path, fault: str) -> None:
    ended = genai.run(*WORDS, f"run.dir={folder}/run", fault=fault)
    assert ended.code == 5
    (line,) = ended.err.splitlines()
    assert all(hint in line for hint in ("train.batch_size", "train.accumulate", "device.precision"))


@pytest.mark.parametrize("model", [VAE, GAN], ids=["vae", "gan"])
def test_auto_goes_on_with_smaller_parts_to_the_same_weights(
    genai: Genai, folder: Path, model: tuple[str, ...]
) -> None:
    group = "model" if model is VAE else "generator"
    words = ("train", *model, *WORDS[len(VAE) + 1 :])
    assert genai.run(*words, f"run.dir={folder}/whole").code == 0
    ended = genai.run(*words, AUTO, f"run.dir={folder}/parts", fault=f"loss.{group}:oom:3,loss.{group}:oom:6")
    assert ended.code == 0, ended.err
    assert "step 3  out of memory: on with 2 micro-batches of 4" in ended.out
    assert "out of memory: on with 4 micro-batches of 2" in ended.out
    assert_close(folder / "whole", folder / "parts")
    assert [line["accumulate"] for line in log_lines(folder / "parts") if "accumulate" in line] == [1, 4, 4]
    for whole, parts in zip(log_lines(folder / "whole"), log_lines(folder / "parts"), strict=True):
        parts.pop("accumulate", None)
        assert parts == pytest.approx(whole, abs=1e-5)


def test_auto_that_is_not_needed_changes_nothing(genai: Genai, folder: Path) -> None:
    for name, word in {"one": "train.accumulate=1", "auto": AUTO}.items():
        assert genai.run(*WORDS, word, f"run.dir={folder}/{name}").code == 0
    one, auto = (weights(folder / name) for name in ("one", "auto"))
    assert all(torch.equal(auto[name], tensor) for name, tensor in one.items())


def test_auto_ends_with_one_example_at_a_time(genai: Genai, folder: Path) -> None:
    faults = ",".join(f"loss.model:oom:{count}" for count in range(3, 20))
    ended = genai.run(*WORDS, AUTO, f"run.dir={folder}/run", fault=faults)
    assert ended.code == 5
    assert "with one example at a time" in ended.err


def test_auto_resumes_to_the_same_bytes(genai: Genai, folder: Path) -> None:
    fault = "loss.model:oom:2"
    assert genai.run(*WORDS, AUTO, f"run.dir={folder}/undisturbed", fault=fault).code == 0
    assert genai.run(*WORDS, AUTO, f"run.dir={folder}/run", fault=f"{fault},step:term:3").code == 143
    assert genai.run("train", f"run={folder}/run").code == 0
    assert final_files(folder / "run") == final_files(folder / "undisturbed")


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_agree_on_the_parts(genai: Genai, folder: Path, rank: int) -> None:
    words = ("train", *VAE, *SGD[:3])
    assert genai.run(*words, f"run.dir={folder}/one").code == 0
    faults = ("", "loss.model:oom:3") if rank else ("loss.model:oom:3", "")
    ended = run_two(genai, *words, AUTO, f"run.dir={folder}/two", faults=faults)
    assert [end.code for end in ended] == [0, 0], ended[0].err + ended[1].err
    assert "on with 2 micro-batches of 2" in ended[0].out
    assert_close(folder / "one", folder / "two")


def test_a_limit_of_the_address_space_is_lack_of_memory(genai: Genai, folder: Path) -> None:
    """T40: as by `ulimit -v`. The allocator of the processor raises a RuntimeError like any other."""
    words = ("train", *VAE, "model.width=256", "dataset.size=50000", "train.batch_size=50000", "train.steps=2")
    process = genai.start(*words, f"run.dir={folder}/run", fault="step:stop:1")
    process.wait_until_stopped()
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (1 << 20)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    process.send(signal.SIGCONT)
    ended = process.wait()
    assert ended.code == 5, ended.err
    assert "out of memory" in ended.err and "Traceback" not in ended.err


def test_a_checkpoint_says_how_many_parts(genai: Genai, folder: Path) -> None:
    assert genai.run(*WORDS, AUTO, f"run.dir={folder}/run", fault="loss.model:oom:1").code == 0
    state = json.loads((folder / "run" / "checkpoints" / "step-00000005" / "state.json").read_text())
    assert state["accumulate"] == 2
