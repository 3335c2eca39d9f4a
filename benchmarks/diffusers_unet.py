"""diffusers (von Platen et al.), its UNet2DModel in the loop of its tutorial, its DDIMPipeline."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.denoising import digits
from benchmarks.fetched import fetch
from benchmarks.ours import count_parameters
from benchmarks.turns import Turns

PACKAGES = [
    "diffusers==0.42.1", "anyio", "certifi", "charset-normalizer", "h11", "hf-xet", "httpcore2", "httpx2",
    "huggingface_hub", "idna", "importlib_metadata", "lazy-importer", "packaging", "regex", "requests", "tqdm",
    "truststore", "urllib3", "zipp",
]  # fmt: skip
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def install() -> str | None:
    """Returns why it cannot be measured, if so."""
    return fetch("diffusers", PACKAGES)


def train(turns: Turns, *, batch_size: int) -> None:
    """Images are drawn at random from memory; without the Accelerator of the tutorial, which costs time here."""
    network = build()
    from diffusers import DDPMScheduler

    images = digits() / 127.5 - 1  # (N, 1, 28, 28), in [-1, 1]
    scheduler = DDPMScheduler(**SCHEDULE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    turns.ready(parameters=count_parameters(network))
    while True:
        x0 = images[torch.randint(len(images), (batch_size,))]
        noise, t = torch.randn_like(x0), torch.randint(1000, (batch_size,))
        velocity = network(scheduler.add_noise(x0, noise, t), t, return_dict=False)[0]
        loss = F.mse_loss(velocity, scheduler.get_velocity(x0, noise, t))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.step_done()


def sample(turns: Turns, *, batch_size: int, sampling_steps: int) -> None:
    """A step is a batch of samples by DDIM."""
    network = build().eval()
    from diffusers import DDIMPipeline, DDIMScheduler

    pipeline = DDIMPipeline(network, DDIMScheduler(**SCHEDULE))
    pipeline.set_progress_bar_config(disable=True)
    turns.ready(parameters=count_parameters(network))
    while True:
        pipeline(batch_size=batch_size, num_inference_steps=sampling_steps, output_type="np")
        turns.step_done()


def build() -> nn.Module:
    """The channels and resolutions of the peer; one block a level brings the number of parameters nearest to it."""
    install()
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def network_pass() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The U-Net, and what it is given for one image."""
    return build(), (torch.zeros(1, 1, 28, 28), torch.zeros(1))
