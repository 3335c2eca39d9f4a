"""What a molecule can be asked to have: numbers that RDKit computes of it, in bins, each of which is a token."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genai_cli.data.base import DataError


@dataclass(frozen=True)
class Property:
    """A property and the evenly spaced bins of its values; what lies beyond falls into the first or the last."""

    name: str
    low: float
    high: float
    bins: int

    def bin_of(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return min(max(int(share * self.bins), 0), self.bins - 1)

    def centre(self, index: int) -> float:
        return self.low + (index + 0.5) * (self.high - self.low) / self.bins

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


PROPERTIES = {
    "logp": Property("logp", -4.0, 8.0, 48),  # solubility in fat against water (Wildman & Crippen 1999)
    "qed": Property("qed", 0.0, 1.0, 20),  # likeness to drugs (Bickerton et al. 2012)
    "weight": Property("weight", 0.0, 600.0, 60),  # daltons
}


def values_of(name: str, molecules: Sequence[str]) -> list[float | None]:
    """The property of each SMILES; None of what RDKit cannot read. Raises DataError without RDKit."""
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import QED, Crippen, Descriptors
    except ImportError as error:
        raise DataError(f"dataset.condition={name} is computed by RDKit: pip install rdkit") from error
    compute = {"logp": Crippen.MolLogP, "qed": QED.qed, "weight": Descriptors.MolWt}[name]
    with rdBase.BlockLogs():
        read = [Chem.MolFromSmiles(smiles) if smiles else None for smiles in molecules]
        return [None if molecule is None else compute(molecule) for molecule in read]
