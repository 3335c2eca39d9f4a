"""QM9: 133,885 molecules of up to nine heavy atoms C, N, O, F (Ramakrishnan et al. 2014), as SMILES.

`genai train model=gpt dataset=qm9 dataset.download=true`. The file is one of the tests of the package selfies.
"""

import hashlib
from functools import cached_property
from typing import Literal

from genai_cli.data.base import DataError, Dataset, SplitName, TensorSplit
from genai_cli.data.download import download
from genai_cli.data.molecules import molecule_spec, molecule_split
from genai_cli.data.places import find, missing, roots
from genai_cli.data.properties import PROPERTIES
from genai_cli.data.shares import share_of, split_of
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.windows import read_text

SHA256 = "80c060e299a44112b89be3fc6d95145dfeda97aa3eab1e2662aafdfbb00f7929"  # of the text
COMMIT = "eb6177e5f20cfd8787f2ac4423f5b38dce6eeeb8"
URLS = (
    f"https://raw.githubusercontent.com/aspuru-guzik-group/selfies/{COMMIT}/tests/test_sets/qm9.csv",
    f"https://cdn.jsdelivr.net/gh/aspuru-guzik-group/selfies@{COMMIT}/tests/test_sets/qm9.csv",
)
PLACES = [
    f"{folder}/{file}{suffix}"
    for folder, file in (("qm9", "qm9.csv"), ("molecules", "qm9_smiles.csv"))
    for suffix in ("", ".xz", ".gz")
]
TOKENS = [
    "#", "(", ")", "1", "2", "3", "4", "5", "=", "C", "F", "N", "O", "[C-]", "[CH-]", "[N-]",
    "[NH+]", "[NH2+]", "[NH3+]", "[O-]",
]  # fmt: skip
LENGTH = 23  # tokens of the longest molecule, its end included


class Qm9(Dataset):
    """133,885 small organic molecules as SMILES; `dataset.download=true` fetches them."""

    modality = "molecules"

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        condition: Literal["logp", "qed", "weight"] | None = None,  # what can be asked for
    ):
        self.root, self.may_download = root, download
        self.tokenizer = SmilesTokenizer(TOKENS, PROPERTIES.get(condition or ""))
        self.spec = molecule_spec(self.tokenizer, LENGTH)

    def load(self, split: SplitName) -> TensorSplit:
        """A tenth of the molecules, chosen by a hash of their text, is the test split, a twentieth the validation."""
        molecules = [
            smiles for smiles in self._molecules if split_of(share_of(smiles), validation=0.05, test=0.1) == split
        ]
        return molecule_split(
            molecules, self.tokenizer, length=LENGTH, source=f"the {split} split of qm9", is_training=split == "train"
        )

    @cached_property
    def _molecules(self) -> list[str]:
        path = find(self.root, PLACES)
        if path is None and self.may_download:
            path = download(URLS, roots(self.root)[0] / PLACES[0], SHA256)
        if path is None:
            remedy = "put the file there (as it is, or .xz, .gz), or let dataset.download=true fetch it (2.2 MB)"
            raise missing("QM9", self.root, PLACES[:1], remedy=remedy)
        content = read_text(path)
        if hashlib.sha256(content).hexdigest() != SHA256:
            raise DataError(f"{path} is not the original file, its sha256 differs: remove it and fetch it again")
        return content.decode().split()[1:]  # after the header
