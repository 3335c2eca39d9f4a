"""Molecules as a sheet: structures where RDKit is, the SMILES themselves where it is not."""

import sys

import torch

from genai_cli.data.base import Spec
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.media.sheets import sheet

TOKENIZER = SmilesTokenizer(["(", ")", "1", "=", "C", "N", "O"])
SPEC = Spec("molecules", (8,), tokenizer=TOKENIZER.to_json(), vocabulary_size=TOKENIZER.vocabulary_size)


def rows(*molecules: str) -> torch.Tensor:
    return TOKENIZER.encode_all(list(molecules), 8)[:, 1:].long()


def test_molecules_are_drawn_and_what_is_none_is_written_in_red() -> None:
    picture = sheet(rows("CCO", "C1CC", "C=O"), SPEC)
    assert picture.dtype == torch.uint8 and picture.shape == (3, 360, 360)
    cells = [picture[:, :180, :180], picture[:, :180, 180:], picture[:, 180:, :180], picture[:, 180:, 180:]]
    assert [bool((cell < 255).any()) for cell in cells] == [True, True, True, False]
    wrong = cells[1].float()
    assert (wrong[0] > wrong[1] + 50).any()  # red


def test_without_rdkit_there_is_a_text(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    text = sheet(rows("CCO", "C=O"), SPEC)
    assert "genai-cli[molecules]" in text and text.splitlines()[1:] == ["CCO", "C=O"]
