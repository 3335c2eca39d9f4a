"""Molecules as pictures of their structures, drawn by RDKit, which is an extra: `pip install genai-cli[molecules]`."""

import math
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

HINT = "pictures of molecules need RDKit: pip install 'genai-cli[molecules]'"
CELL = 180  # pixels of a molecule's sides
MOST_LETTERS = 26  # of a legend


def structure_sheet(molecules: Sequence[str]) -> Tensor | None:
    """(3, H, W) uint8: a grid of structures with their SMILES, those that are no molecules crossed out in words.

    None where RDKit is not installed.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import Draw
    except ImportError:
        return None
    with rdBase.BlockLogs():
        found = [Chem.MolFromSmiles(smiles) if smiles else None for smiles in molecules]
    legends = [
        shorten(smiles) if molecule is not None else f"no molecule: {shorten(smiles)}"
        for smiles, molecule in zip(molecules, found, strict=True)
    ]
    drawn = [molecule if molecule is not None else Chem.MolFromSmiles("") for molecule in found]
    picture = Draw.MolsToGridImage(
        drawn, molsPerRow=math.ceil(math.sqrt(len(drawn))), subImgSize=(CELL, CELL), legends=legends, returnPNG=False
    )
    pixels = numpy.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def shorten(smiles: str) -> str:
    return smiles if len(smiles) <= MOST_LETTERS else smiles[: MOST_LETTERS - 3] + "..."
