"""How good sampled molecules are, by the definitions of MOSES (Polykovskiy et al. 2020, section 4).

Where RDKit is not installed, a molecule is valid if its SMILES is well formed (`data/smiles_tokens.py`: brackets, rings
and valences) and two are the same if they are spelled alike; figures say which of the two was asked.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from genai_cli.data.smiles_tokens import problem_of

UNIQUE_AT = (1_000, 10_000)
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
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in molecules[:most]]
    similarities = [sum(DataStructs.BulkTanimotoSimilarity(one, prints)) for one in prints]
    return 1 - sum(similarities) / len(prints) ** 2
