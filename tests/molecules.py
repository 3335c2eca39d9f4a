"""A file of molecules for tests: chains with a group at the end, rings among them, each a well-formed SMILES."""

from pathlib import Path

GROUPS = ("O", "N", "F", "Cl", "C=O", "C#N", "OC", "C(=O)O", "C(F)(F)F", "c1ccccc1", "C1CC1", "[N+](=O)[O-]")


def write_molecules(path: Path) -> Path:
    """144 of them."""
    path.write_text(
        "".join(f"{'C' * length}{group}\n" for length in range(1, 13) for group in GROUPS), encoding="utf-8"
    )
    return path
