"""How good sampled molecules are, by the definitions of MOSES (Polykovskiy et al. 2020, section 4).

Where RDKit is not installed, a molecule is valid if its SMILES is well formed (`data/smiles_tokens.py`: brackets, rings
and valences) and two are the same if they are spelled alike; figures say which of the two was asked.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from genai_cli.data.smiles_tokens import problem_of

UNIQUE_AT = (1_000, 10_000)
_TILE = 2048  # molecules that are held against as many others at once
Canonical = Callable[[str], str | None]  # the one spelling of a molecule; None of what is none


def canonical_speller() -> tuple[Canonical, str]:
    """RDKit's canonical SMILES, or the spelling itself; and which of them it is: "rdkit" or "syntax"."""
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        return (lambda smiles: smiles if smiles and problem_of(smiles) is None else None), "syntax"

    def canonical(smiles: str) -> str | None:
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(smiles) if smiles else None
            return None if molecule is None else Chem.MolToSmiles(molecule)

    return canonical, "rdkit"


def molecule_figures(samples: Sequence[str], known: Collection[str] | None = None) -> dict[str, Any]:
    """valid, unique@k (of the first k valid ones), novel (of the distinct ones, not in `known`), internal_diversity.

    `known`: the training molecules, spelled as in the data, which those of MOSES are canonically.
    """
    canonical, judge = canonical_speller()
    spelled = [canonical(smiles) for smiles in samples]
    valid = [smiles for smiles in spelled if smiles is not None]
    figures: dict[str, Any] = {"judge": judge, "count": len(samples), "valid": len(valid) / max(len(samples), 1)}
    figures["well_formed"] = sum(problem_of(smiles) is None for smiles in samples) / max(len(samples), 1)
    if not valid:
        return figures
    figures["unique"] = len(set(valid)) / len(valid)
    for k in UNIQUE_AT:
        if len(valid) >= k:
            figures[f"unique@{k}"] = len(set(valid[:k])) / k
    if known is not None:
        figures["novel"] = len(set(valid) - set(known)) / len(set(valid))
    if judge == "rdkit":
        figures["internal_diversity"] = internal_diversity(valid)
    return figures


def internal_diversity(molecules: Sequence[str], *, most: int = 30_000) -> float:
    """1 - the mean Tanimoto similarity of all pairs (Benhenda 2017), each with itself too, of the first `most`.

    Similarities of Morgan fingerprints of radius 2 with 1,024 bits. Needs RDKit.
    """
    from rdkit import Chem

    prints = fingerprints([Chem.MolFromSmiles(smiles) for smiles in molecules[:most]])
    total = sum(float(tile.double().sum()) for _, tile in similarities(prints, prints))
    return 1 - total / len(prints) ** 2


def fingerprints(molecules: Sequence[Any]) -> Tensor:
    """Morgan's, of radius 2, of RDKit's molecules: (N, 1024) uint8 of 0 and 1."""
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    return torch.stack([torch.from_numpy(generator.GetFingerprintAsNumPy(molecule)) for molecule in molecules])


def similarities(prints: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Tanimoto's of all pairs, (N, 1024) and (M, 1024), in tiles: which of `prints`, and theirs to some of `others`.

    Bits in common are counted by matrix products, which takes a third of the time of counting them pair by pair.
    """
    for known in others.split(_TILE):
        known = known.float()
        for start in range(0, len(prints), _TILE):
            rows = slice(start, start + _TILE)
            some = prints[rows].float()
            both = some @ known.t()
            yield rows, both / (some.sum(1, keepdim=True) + known.sum(1) - both)
