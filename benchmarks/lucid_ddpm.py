"""denoising-diffusion-pytorch (Wang, github.com/lucidrains), the U-Net and the diffusion of its README."""

import torch
from torch import nn

from benchmarks.denoising import digits
from benchmarks.fetched import fetch
from benchmarks.ours import count_parameters
from benchmarks.turns import Turns

PACKAGES = [
    "denoising-diffusion-pytorch==2.3.4", "accelerate", "einops", "ema-pytorch", "huggingface_hub", "packaging",
    "psutil", "pytorch-fid", "scipy", "tqdm",
]  # fmt: skip


def install() -> str | None:
    """Returns why it cannot be measured, if so."""
    return fetch("denoising_diffusion_pytorch", PACKAGES)


def train(turns: Turns, *, batch_size: int) -> None:
    """The loop of its README on MNIST, with the Adam of its Trainer; images are drawn at random from memory."""
    images = digits() / 255  # (N, 1, 28, 28), in [0, 1] as it wants them
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


def build(*, sampling_steps: int) -> nn.Module:
    install()
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    network = Unet(dim=32, dim_mults=(1, 2, 4), channels=1)
    return GaussianDiffusion(
        network, image_size=28, timesteps=1000, sampling_timesteps=sampling_steps, objective="pred_v",
        beta_schedule="cosine",
    )  # fmt: skip


def network_pass() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The U-Net, and what it is given for one image."""
    return build(sampling_steps=10).model, (torch.zeros(1, 1, 28, 28), torch.zeros(1))
