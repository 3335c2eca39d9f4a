"""MOSES: 1.9 million drug-like molecules with the splits of its benchmark (Polykovskiy et al. 2020, arXiv:1811.12823).

`genai train model=gpt dataset=moses`. The files train.csv.gz, test.csv.gz and test_scaffolds.csv.gz are those of the
Python package molsets 0.3.1. Of the training molecules, every hundredth is for validation.
"""

import hashlib
from typing import Literal

from genai_cli.data.base import DataError, Dataset, SplitName, TensorSplit
from genai_cli.data.molecules import molecule_spec, molecule_split
from genai_cli.data.places import find, missing
from genai_cli.data.properties import PROPERTIES
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.windows import read_text
from genai_cli.rules import PositiveInt

FOLDERS = ("moses", "molecules/moses")
SHA256 = {  # of the text
    "train": "cc9d6e8e9534e25a7a36361529ae739ddda8036e9072b2fc5cea6930a0592144",
    "test": "0248e682a9c29ca7649184dd88a4edc83f48f0e84af6b923990069c3da4501b6",
    "test_scaffolds": "86c298db856515f4b31a90805de16a580c60a6adcc0ad700ae180d88ba0b9bce",
}
TOKENS = [
    "#", "(", ")", "-", "1", "2", "3", "4", "5", "6", "=", "Br", "C", "Cl", "F", "N",
    "O", "S", "[H]", "[nH]", "c", "n", "o", "s",
]  # fmt: skip
LENGTH = 58  # tokens of the longest molecule, its end included
VALIDATION_EVERY = 100


class Moses(Dataset):
    """The MOSES benchmark: 1,584,663 drug-like molecules to train on, as SMILES, and its two test splits."""

    modality = "molecules"

    def __init__(
        self,
        *,
        root: str | None = None,
        size: PositiveInt | None = None,  # of the molecules to train on, evenly from all of the file; null: all
        test: Literal["test", "test_scaffolds"] = "test",  # test_scaffolds: of scaffolds that no other split has
        condition: Literal["logp", "qed", "weight"] | None = None,  # what can be asked for
    ):
        self.root, self.size, self.test = root, size, test
        self.tokenizer = SmilesTokenizer(TOKENS, PROPERTIES.get(condition or ""))
        self.spec = molecule_spec(self.tokenizer, LENGTH)

    def load(self, split: SplitName) -> TensorSplit:
        molecules = read_moses(self.root, self.test if split == "test" else "train")
        if split == "validation":
            molecules = molecules[::VALIDATION_EVERY]
        elif split == "train":
            del molecules[::VALIDATION_EVERY]
            size = min(self.size or len(molecules), len(molecules))
            molecules = [molecules[i * len(molecules) // size] for i in range(size)]
        return molecule_split(
            molecules, self.tokenizer, length=LENGTH, source=f"the {split} split of moses", is_training=split == "train"
        )


def read_moses(root: str | None, name: str) -> list[str]:
    files = [f"{name}.csv", f"{name}.csv.gz", f"{name}.csv.xz"]
    path = find(root, [f"{folder}/{file}" for folder in FOLDERS for file in files])
    if path is None:
        remedy = "put the file there (as it is, or .gz, .xz); it is in the package molsets 0.3.1, moses/dataset/data"
        raise missing("the MOSES benchmark", root, [f"{FOLDERS[0]}/{name}.csv"], remedy=remedy)
    content = read_text(path)
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise DataError(f"{path} is not the original file, its sha256 differs: get it again")
    return content.decode().split()[1:]
