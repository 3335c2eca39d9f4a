"""Facts about batch normalisation: it is torch's, and two processes make one batch."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.ranks import sum_over_ranks

ROWS = [slice(0, 4), slice(4, 6)]  # of the batch, by rank: shares of unlike size


@pytest.mark.parametrize("shape", [(7, 3), (6, 3, 4, 5)])
def test_one_process_equals_torch(shape):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = BatchNorm(3), (nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3))
    for _ in range(3):
        x = 2 + 3 * torch.randn(shape, generator=generator)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_evaluation_does_not_mix_rows():
    norm, x = BatchNorm(3), torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    norm(x)
    norm.eval()
    torch.testing.assert_close(norm(x)[:1], norm(x[:1]))


def test_two_processes_equal_one(tmp_path):
    fork = torch.multiprocessing.get_context("fork")
    processes = [fork.Process(target=normalise_share, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = normalise(slice(0, 6))
    for name in ("output", "gradient", "second_gradient"):  # of the rows of each rank
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name])
    for name in ("weight", "bias"):  # a parameter's gradient is the sum over ranks
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name])
    for part in parts:
        torch.testing.assert_close(part["running_mean"], whole["running_mean"])
        torch.testing.assert_close(part["running_var"], whole["running_var"])
        torch.testing.assert_close(part["far_from_zero"], parts[0]["far_from_zero"])
        assert part["sum"].tolist() == [1.0, 5.0]
    # A mean of 10,000 deviations does not eat the digits of the variance.
    far = normalise_far_from_zero()
    torch.testing.assert_close(parts[0]["far_from_zero"], far, rtol=1e-3, atol=1e-3)


def normalise_share(rank: int, folder: Path) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    record = normalise(ROWS[rank])
    record["sum"] = sum_over_ranks(torch.tensor([float(rank), 2.0 + rank]))
    record["far_from_zero"] = normalise_far_from_zero()
    torch.save(record, folder / f"{rank}.pt")
    dist.destroy_process_group()


def normalise(rows: slice) -> dict[str, Tensor]:
    """These rows of a fixed batch through a fixed layer: output, statistics, first and second derivatives."""
    generator = torch.Generator().manual_seed(0)
    norm = BatchNorm(3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    x = torch.randn(6, 3, 4, 5, generator=generator, dtype=torch.float64)[rows].requires_grad_()
    slope = torch.randn(6, 3, 4, 5, generator=generator, dtype=torch.float64)[rows]
    output = norm(x)
    loss = (slope * output.pow(3)).sum()
    gradient, weight, bias = torch.autograd.grad(loss, [x, norm.weight, norm.bias], create_graph=True)
    (second_gradient,) = torch.autograd.grad(gradient.square().sum(), x)
    record = {
        "output": output, "gradient": gradient, "second_gradient": second_gradient, "weight": weight, "bias": bias,
        "running_mean": norm.running_mean, "running_var": norm.running_var,
    }  # fmt: skip
    return {name: value.detach() for name, value in record.items()}


def normalise_far_from_zero() -> Tensor:
    """The same batch in every process, so that their whole has the statistics of each."""
    x = 1e4 + torch.randn(64, 1, generator=torch.Generator().manual_seed(1))
    return BatchNorm(1)(x).detach()
