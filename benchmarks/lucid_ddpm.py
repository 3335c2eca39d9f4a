"""denoising-diffusion-pytorch (Wang, github.com/lucidrains), the U-Net and the diffusion of its README.

It is installed on demand into a folder of its own, without the packages that it shares with us: both are measured
on the same torch, and our environment stays as it was.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.ours import count_parameters
from benchmarks.turns import Turns

FOLDER = Path(__file__).resolve().parent.parent / ".venv-ddpm"
PACKAGES = [
    "denoising-diffusion-pytorch==2.2.5", "accelerate", "einops", "ema-pytorch", "huggingface_hub", "packaging",
    "psutil", "pytorch-fid", "scipy", "tqdm",
]  # fmt: skip


def install() -> str | None:
    """Fetch it where it is not there yet. Returns why it cannot be measured, if so."""
    if (FOLDER / "denoising_diffusion_pytorch").is_dir():
        return None
    pip = [shutil.which("uv"), "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
    python = ["--python", sys.executable] if shutil.which("uv") else []
    command = [*pip, "install", "--quiet", "--no-deps", "--target", str(FOLDER), *python, *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"denoising-diffusion-pytorch could not be installed: {done.stderr.strip()}" if done.returncode else None


def train(turns: Turns, *, batch_size: int) -> None:
    """The loop of its README on MNIST, with the Adam of its Trainer; images are drawn at random from memory."""
    from genai_cli.data.mnist import Mnist

    images = Mnist().load("train").tensors["image"].float() / 255  # (N, 1, 28, 28), in [0, 1] as it wants them
    diffusion = build(sampling_steps=10)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
    turns.ready(parameters=count_parameters(diffusion))
    while True:
        loss = diffusion(images[torch.randint(len(images), (batch_size,))])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        turns.step_done()


def sample(turns: Turns, *, batch_size: int, sampling_steps: int) -> None:
    """A step is a batch of samples by DDIM."""
    diffusion = build(sampling_steps=sampling_steps).eval()
    turns.ready(parameters=count_parameters(diffusion))
    while True:
        diffusion.sample(batch_size=batch_size)
        turns.step_done()


def build(*, sampling_steps: int) -> torch.nn.Module:
    sys.path.append(str(FOLDER))
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    network = Unet(dim=32, dim_mults=(1, 2, 4), channels=1)
    return GaussianDiffusion(
        network, image_size=28, timesteps=1000, sampling_timesteps=sampling_steps, objective="pred_v",
        beta_schedule="cosine",
    )  # fmt: skip
