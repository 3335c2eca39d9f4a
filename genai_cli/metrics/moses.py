"""Sampled molecules beside held-out ones, by the definitions of MOSES (Polykovskiy et al. 2020, section 4).

All are of valid, canonically spelled molecules and need RDKit; the Frechet ChemNet distance needs `fcd_torch`, whose
package holds the network (Preuer et al. 2018), and scipy.
"""

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli.metrics.molecules import fingerprints, similarities

ALLOWED = {"C", "N", "S", "O", "F", "Cl", "Br", "H"}
LARGEST_RING = 7  # atoms
ALERTS = ("mcf.csv", "wehi_pains.csv")  # medicinal chemistry filters, and those of assays' frequent hitters
FEWEST_FOR_FCD = 1024  # of 512 features
_TOGETHER = 256  # molecules that ChemNet reads at once
HINT = "pip install fcd-torch scipy"


def molecules_of(spelled: Sequence[str]) -> list[Any]:
    """RDKit's molecules of valid SMILES."""
    from rdkit import Chem

    return [Chem.MolFromSmiles(smiles) for smiles in spelled]


def nearest_similarity(samples: Sequence[Any], reference: Sequence[Any]) -> Tensor:
    """SNN, (N,): of each sample the Tanimoto similarity to its nearest of `reference`.

    Of Morgan fingerprints of radius 2 with 1,024 bits.
    """
    nearest = torch.zeros(len(samples))
    for rows, tile in similarities(fingerprints(samples), fingerprints(reference)):
        nearest[rows] = torch.maximum(nearest[rows], tile.amax(1))
    return nearest


def fragments(molecules: Sequence[Any]) -> Counter[str]:
    """Frag: how often each BRICS fragment (Degen et al. 2008) is in them."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    return Counter(
        part for molecule in molecules for part in Chem.MolToSmiles(AllChem.FragmentOnBRICSBonds(molecule)).split(".")
    )


def scaffolds(molecules: Sequence[Any]) -> Counter[str]:
    """Scaf: how often each Bemis-Murcko scaffold of at least two rings is theirs."""
    from rdkit import Chem, rdBase
    from rdkit.Chem.Scaffolds import MurckoScaffold

    with rdBase.BlockLogs():  # of hydrogen atoms that are left alone
        cores = [MurckoScaffold.GetScaffoldForMol(molecule) for molecule in molecules]
    return Counter(Chem.MolToSmiles(core) for core in cores if core.GetRingInfo().NumRings() >= 2)


def cosine(one: Counter[str], other: Counter[str]) -> float:
    """Of two histograms; NaN where one is empty."""
    product = sum(count * other[key] for key, count in one.items())
    norms = (math.sqrt(sum(count * count for count in histogram.values())) for histogram in (one, other))
    length = math.prod(norms)
    return product / length if length else math.nan


def read_alerts(folder: Path) -> list[Any]:
    """The structures that MOSES leaves out, from its two files. Raises OSError, or ValueError for what is no pattern.

    Neither is RDKit's own catalogue: its PAINS are other patterns, and it has no MCF.
    """
    from rdkit import Chem

    words = []
    with open(folder / ALERTS[0], encoding="utf-8", newline="") as file:
        words += [row["smarts"] for row in csv.DictReader(file)]
    with open(folder / ALERTS[1], encoding="utf-8", newline="") as file:
        words += [row[0] for row in csv.reader(file) if row]
    patterns = [Chem.MolFromSmarts(smarts.strip()) for smarts in words]
    if None in patterns:
        raise ValueError(f"{folder}: {words[patterns.index(None)]!r} is no SMARTS pattern")
    return patterns


def passes_filters(molecule: Any, alerts: Sequence[Any]) -> bool:
    """Filters: no charge, no ring of more than 7 atoms, no unusual atom, none of `alerts` (hydrogens made explicit)."""
    from rdkit import Chem

    atoms = list(molecule.GetAtoms())
    if any(atom.GetFormalCharge() != 0 or atom.GetSymbol() not in ALLOWED for atom in atoms):
        return False
    if any(len(ring) > LARGEST_RING for ring in molecule.GetRingInfo().AtomRings()):
        return False
    whole = Chem.AddHs(molecule)
    return not any(whole.HasSubstructMatch(alert) for alert in alerts)


class ChemNet:
    """The features of the Frechet ChemNet distance: 512 numbers of a molecule's canonical SMILES."""

    def __init__(self) -> None:
        """Raises ImportError where the package that holds the network is not installed."""
        from fcd_torch import FCD
        from fcd_torch.utils import SmilesDataset

        self._dataset = SmilesDataset
        self._network = FCD(device="cpu").model.eval()

    @torch.no_grad()
    def __call__(self, spelled: Sequence[str]) -> Tensor:
        """(N, 512) float32."""
        letters = self._dataset(list(spelled), canonize=True)
        parts = []
        for start in range(0, len(spelled), _TOGETHER):
            rows = range(start, min(start + _TOGETHER, len(spelled)))
            batch = torch.stack([torch.as_tensor(letters[i]) for i in rows])  # (B, T, 35), one-hot
            # A copy: the network returns a view of all it has computed on the way, a gigabyte for 5,000 molecules.
            parts.append(self._network(batch.transpose(1, 2).float()).clone())
        return torch.cat(parts)
