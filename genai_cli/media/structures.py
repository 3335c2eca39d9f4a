"""Molecules as pictures of their structures, drawn by RDKit, which is an extra: `pip install genai-cli[molecules]`."""

import math
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

HINT = "pictures of molecules need RDKit: pip install 'genai-cli[molecules]'"
CELL = 180  # pixels of a molecule's sides
RED = (190, 40, 40)
MOST_LETTERS = 26  # of a legend


def structure_sheet(molecules: Sequence[str]) -> Tensor | None:
    """(3, H, W) uint8: a grid of structures above their SMILES; of what is no molecule, the SMILES in red alone.

    None where RDKit is not installed.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import Draw
    except ImportError:
        return None
    from PIL import ImageDraw, ImageFont

    with rdBase.BlockLogs():
        found = [Chem.MolFromSmiles(smiles) if smiles else None for smiles in molecules]
    columns = math.ceil(math.sqrt(len(found)))
    legends = [shorten(smiles) for smiles in molecules]
    picture = Draw.MolsToGridImage(
        found, molsPerRow=columns, subImgSize=(CELL, CELL), legends=legends, returnPNG=False
    ).convert("RGB")  # fmt: skip
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    for i, (molecule, legend) in enumerate(zip(found, legends, strict=True)):
        if molecule is None:
            place = (i % columns * CELL + CELL // 2, i // columns * CELL + CELL // 2)
            draw.text(place, legend, fill=RED, font=font, anchor="mm")
    pixels = numpy.array(picture)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def shorten(smiles: str) -> str:
    return smiles if len(smiles) <= MOST_LETTERS else smiles[: MOST_LETTERS - 3] + "..."
