"""pythae's VAE (Chadebec et al. 2022), trained by its own pipeline as its README shows.

It is installed on demand into a folder of its own, without the packages that it shares with us: both are measured
on the same torch, and our environment stays as it was.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.ours import count_parameters
from benchmarks.turns import Turns

FOLDER = Path(__file__).resolve().parent.parent / ".venv-pythae"
PACKAGES = [
    "pythae==0.1.2", "annotated-types", "cloudpickle", "imageio", "joblib", "pydantic", "pydantic-core",
    "scikit-learn", "scipy", "threadpoolctl", "tqdm", "typing-inspection",
]  # fmt: skip


def install() -> str | None:
    """Fetch it where it is not there yet. Returns why it cannot be measured, if so."""
    if (FOLDER / "pythae").is_dir():
        return None
    pip = [shutil.which("uv"), "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
    python = ["--python", sys.executable] if shutil.which("uv") else []
    command = [*pip, "install", "--quiet", "--no-deps", "--target", str(FOLDER), *python, *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"pythae could not be installed: {done.stderr.strip()}" if done.returncode else None


def train(turns: Turns) -> None:
    sys.path.append(str(FOLDER))
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback
    from torch import nn

    from genai_cli.data.mnist import Mnist

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(400, 20), nn.Linear(400, 20)

        def forward(self, x):
            hidden = self.hidden(x.flatten(1))
            return ModelOutput(embedding=self.mean(hidden), log_covariance=self.log_variance(hidden))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid())

        def forward(self, z):
            return ModelOutput(reconstruction=self.network(z).view(-1, 1, 28, 28))

    class Announcer(TrainingCallback):
        def on_train_step_end(self, training_config, **others):
            turns.step_done()

    images = Mnist().load("train").tensors["image"].float() / 255  # (N, 1, 28, 28), in [0, 1]
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    settings = BaseTrainerConfig(
        output_dir=".", num_epochs=10_000, learning_rate=1e-3, per_device_train_batch_size=128, no_cuda=True
    )
    turns.ready(parameters=count_parameters(model))
    TrainingPipeline(model=model, training_config=settings)(train_data=images, callbacks=[Announcer()])
