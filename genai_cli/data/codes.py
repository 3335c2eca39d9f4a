"""The quantised codes of a trained run's data, as tokens. `genai train model=gpt dataset=codes dataset.run=DIR`

An image is a sentence of T codes, in the order in which the quantiser numbers them. As in Spec.tokens there are T + 1
in a batch: every sentence begins with a 0 that stands for nothing, and is given.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_cli.data.base import Dataset, Spec, SplitName, TensorSplit
from genai_cli.data.first_stage import CodeDecoder, FirstStage
from genai_cli.data.tokenizers import Numbers
from genai_cli.errors import ConfigError
from genai_cli.rules import CheckpointName, FolderName


class Codes(Dataset):
    """The images of a run of vqvae or vqgan as its quantiser writes them; splits are the run's own."""

    modality = "codes"
    rules = {"run != 'latest'": "the codes are of one run for good: give its directory"}

    def __init__(self, *, run: FolderName, checkpoint: CheckpointName = "last"):
        self.run, self.checkpoint = run, checkpoint

    def connect(self, open_run: Callable[[str, str], FirstStage]) -> None:
        self.stage = open_run(self.run, self.checkpoint)
        model = self.stage.model
        try:
            shape = self.stage.shape_of(model.codes_of)
        except NotImplementedError:
            raise ConfigError(
                f"dataset.run={self.run}: model={self.stage.name} has no quantiser; give a run of vqvae or vqgan, or "
                "take dataset=latents"
            ) from None
        self.source = self.stage.data
        self.spec = Spec(
            "codes", shape, classes=model.spec.classes, tokenizer=Numbers(model.num_codes).to_json(),
            vocabulary_size=model.num_codes, first_stage=self.stage.record(),
        )  # fmt: skip
        self.code_decoder = CodeDecoder(self.stage, self.spec)

    def load(self, split: SplitName) -> TensorSplit:
        return TensorSplit(self.stage.encoded("codes", self.stage.model.codes_of, split), sentences)


def sentences(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored rows to `tokens` (B, T + 1) int64 with a 0 before them, `mask` (B, T), all True, and the labels."""
    codes = rows.pop("codes").long()  # (B, T)
    labels = {"label": rows["label"].long()} if "label" in rows else {}
    return {"tokens": F.pad(codes, (1, 0)), "mask": torch.ones_like(codes, dtype=torch.bool), **labels}
