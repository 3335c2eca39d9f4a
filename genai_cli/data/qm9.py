"""QM9: 133,885 molecules of up to nine heavy atoms C, N, O, F (Ramakrishnan et al. 2014), as SMILES; in the package.

`genai train model=gpt dataset=qm9`
"""

from functools import cached_property
from pathlib import Path

from genai_cli.data.base import Dataset, SplitName, TensorSplit
from genai_cli.data.molecules import molecule_spec, molecule_split, split_of
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.windows import read_text

FILE = Path(__file__).parent / "embedded" / "molecules" / "qm9_smiles.csv.xz"
TOKENS = [
    "#", "(", ")", "1", "2", "3", "4", "5", "=", "C", "F", "N", "O", "[C-]", "[CH-]", "[N-]",
    "[NH+]", "[NH2+]", "[NH3+]", "[O-]",
]  # fmt: skip
LENGTH = 23  # tokens of the longest molecule, its end included


class Qm9(Dataset):
    """133,885 small organic molecules as SMILES; in the package."""

    modality = "molecules"

    def __init__(self) -> None:
        self.tokenizer = SmilesTokenizer(TOKENS)
        self.spec = molecule_spec(self.tokenizer, LENGTH)

    def load(self, split: SplitName) -> TensorSplit:
        """A tenth of the molecules, chosen by a hash of their text, is the test split, a twentieth the validation."""
        molecules = [smiles for smiles in self._molecules if split_of(smiles, validation=0.05, test=0.1) == split]
        return molecule_split(molecules, self.tokenizer, length=LENGTH, source=f"the {split} split of qm9")

    @cached_property
    def _molecules(self) -> list[str]:
        return read_text(FILE).decode().split()[1:]
