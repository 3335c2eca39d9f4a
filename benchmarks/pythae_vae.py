"""pythae's VAE (Chadebec et al. 2022), trained by its own pipeline as its README shows."""

from benchmarks.fetched import fetch
from benchmarks.ours import count_parameters
from benchmarks.turns import Turns

PACKAGES = [
    "pythae==0.1.2", "annotated-types", "cloudpickle", "imageio", "joblib", "pydantic", "pydantic-core",
    "scikit-learn", "scipy", "threadpoolctl", "tqdm", "typing-inspection",
]  # fmt: skip


def install() -> str | None:
    """Returns why it cannot be measured, if so."""
    return fetch("pythae", PACKAGES)


def train(turns: Turns) -> None:
    install()
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
