"""What a trained autoencoder's encoder makes of its data. `genai train model=ldm dataset=latents dataset.run=DIR`

Vectors (D,) of ae, rae, wae, mae or a vae (of which the mean), maps (D, h, w) of vqvae and vqgan (what the quantiser is
given). They are brought to mean zero and variance one, as Rombach et al. 2022 (arXiv:2112.10752) have it.
"""

from collections.abc import Callable

from genai_cli.data.base import Dataset, Spec, SplitName, TensorSplit
from genai_cli.data.first_stage import CodeDecoder, FirstStage, scale_of, scaled
from genai_cli.errors import ConfigError
from genai_cli.rules import CheckpointName, FolderName

SCALED_BY = 4000  # training examples that mean and variance are of (the paper: the first batch)


class Latents(Dataset):
    """The examples of a run of any autoencoder as it encodes them; splits and labels are the run's own."""

    modality = "latents"
    rules = {"run != 'latest'": "the latents are of one run for good: give its directory"}

    def __init__(self, *, run: FolderName, checkpoint: CheckpointName = "last"):
        self.run, self.checkpoint = run, checkpoint

    def connect(self, open_run: Callable[[str, str], FirstStage]) -> None:
        self.stage = open_run(self.run, self.checkpoint)
        model = self.stage.model
        try:
            shape = self.stage.shape_of(model.latents_of)
        except NotImplementedError:
            raise ConfigError(
                f"dataset.run={self.run}: model={self.stage.name} has no encoder; give a run of ae, vae or vqvae, say"
            ) from None
        self.source = self.stage.data
        self.scale = scale_of(self.stage.encode_first(SCALED_BY, "latent", model.latents_of, "train")["latent"])
        self.spec = Spec(
            "latents", shape, classes=model.spec.classes, first_stage={**self.stage.record(), **self.scale}
        )  # fmt: skip
        self.code_decoder = CodeDecoder(self.stage, self.spec)

    def load(self, split: SplitName) -> TensorSplit:
        rows = self.stage.encoded("latent", self.stage.model.latents_of, split)
        labels = {"label": rows["label"].long()} if "label" in rows else {}
        return TensorSplit({"latent": scaled(rows["latent"], self.scale), **labels}, lambda rows: rows)
