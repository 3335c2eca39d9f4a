"""SMILES: exact round trips, a reader that agrees with chemistry, a grammar that always gets home."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem, rdBase

from genai_cli.data.qm9 import TOKENS
from genai_cli.data.smiles_tokens import SmilesTokenizer, problem_of
from genai_cli.data.tokenizers import tokenizer_from_json
from tests.molecules import write_molecules

DRUGS = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "Clc1ccc(Br)cc1",
    "C1CC2CCC1C2",
    "c1cc2c([nH]1)nccn2",
    "N#CC%10CC%10",
    "[NH3+]CC([O-])=O",
]
TOKENIZER = SmilesTokenizer.of_molecules("\n".join(DRUGS))
words = st.lists(st.sampled_from(TOKENIZER.tokens), min_size=1, max_size=20)


@given(words)
def test_round_trip(tokens) -> None:
    """Of every string that the vocabulary can spell, molecule or not."""
    smiles = "".join(tokens)
    encoded = TOKENIZER.encode(smiles)
    assert TOKENIZER.decode(encoded) == smiles
    assert TOKENIZER.decode(torch.cat([torch.tensor([0]), encoded, torch.tensor([0, 3])])) == smiles


@given(st.lists(words, min_size=1, max_size=5))
def test_many_at_once_are_encoded_as_each_alone(rows) -> None:
    molecules = ["".join(row) for row in rows]
    filled = TOKENIZER.encode_all(molecules, 41)
    for smiles, row in zip(molecules, filled, strict=True):
        expected = TOKENIZER.encode(smiles)
        assert row[0] == 0 and torch.equal(row[1 : len(expected) + 1].long(), expected)
        assert (row[len(expected) + 1 :] == 0).all()
    assert TOKENIZER.decode_all(filled) == molecules


def test_unknown_tokens_are_named_with_their_position() -> None:
    with pytest.raises(ValueError, match=r"'I' \(U\+0049, LATIN CAPITAL LETTER I\) at position 2"):
        TOKENIZER.encode("CCI")
    with pytest.raises(ValueError, match=r"'\[Se\]' at position 3"):
        TOKENIZER.encode("BrC[Se]")


def test_the_record_is_json_and_rebuilds_the_tokenizer() -> None:
    record = json.loads(json.dumps(TOKENIZER.to_json()))
    assert tokenizer_from_json(record).encode(DRUGS[0]).tolist() == TOKENIZER.encode(DRUGS[0]).tolist()


# -- the reader ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smiles", [*DRUGS, "C", "C.C", "[H][H]", "C=1CCCCC=1", "C(C)(C)(C)C", "OS(=O)(=O)O"])
def test_molecules_are_well_formed(smiles: str) -> None:
    assert problem_of(smiles) is None


@pytest.mark.parametrize(
    ("smiles", "problem"),
    [
        ("", "too early"),
        ("C(", "not closed"),
        ("C)C", "')' at position 1"),
        ("C1CC", "ring 1 is not closed"),
        ("C=", "too early"),
        ("C==C", "'=' at position 2"),
        ("=C", "'=' at position 0"),
        ("C()C", "')' at position 2"),
        ("C11", "'1' at position 2"),
        ("C1C1", "'1' at position 3"),
        ("C12CC12", "'2' at position 6"),
        ("C=1CCC#1", "'1' at position 7"),
        ("FC(F)(F)(F)F", "at position 11"),
        ("O=O=O", "'O' at position 4"),
        ("CFC", "'C' at position 2"),
        ("C(.C)C", "'.' at position 2"),
        ("xC", "'x' at position 0"),
    ],
)
def test_what_is_wrong_is_named(smiles: str, problem: str) -> None:
    assert problem in str(problem_of(smiles))


def test_molecules_are_well_formed_to_the_reader_and_to_rdkit(tmp_path: Path) -> None:
    for smiles in write_molecules(tmp_path / "molecules.smi").read_text().split():
        assert problem_of(smiles) is None and Chem.MolFromSmiles(smiles) is not None, smiles


def test_what_the_reader_refuses_is_no_molecule_to_rdkit_either() -> None:
    with rdBase.BlockLogs():
        for smiles in ("C(", "C)C", "C1CC", "C==C", "C11", "C1C1", "FC(F)(F)(F)F", "O=O=O", "CFC", "C12CC12"):
            assert problem_of(smiles) and Chem.MolFromSmiles(smiles) is None, smiles


# -- the grammar --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [TOKENS, TOKENIZER.tokens], ids=["qm9", "drugs"])
@pytest.mark.parametrize("length", [2, 5, 24])
def test_every_way_through_the_grammar_ends_in_a_well_formed_molecule(tokens, length: int) -> None:
    tokenizer = SmilesTokenizer(tokens)
    rows, generator = 40, torch.Generator().manual_seed(length)
    grammar = tokenizer.grammar(rows)
    drawn = torch.zeros(rows, length + 1, dtype=torch.int64)
    grammar.advance(drawn[:, 0])
    for now in range(1, length + 1):
        allowed = grammar.allowed(length + 1 - now)
        assert allowed.any(1).all()
        drawn[:, now] = torch.multinomial(allowed.double(), 1, generator=generator)[:, 0]
        grammar.advance(drawn[:, now])
    molecules = [tokenizer.decode(row) for row in drawn]
    assert all(problem_of(smiles) is None for smiles in molecules)
    assert (drawn[:, -1] == 0).all() and len(set(molecules)) > 1


def test_what_is_well_formed_passes_the_grammar() -> None:
    grammar = TOKENIZER.grammar(1)
    grammar.advance(torch.tensor([0]))
    for token in [*TOKENIZER.encode(DRUGS[0]).tolist(), 0]:
        assert grammar.allowed(60)[0, token]
        grammar.advance(torch.tensor([token]))


def test_without_carbon_there_is_no_grammar() -> None:
    assert SmilesTokenizer(["N", "O"]).grammar(3) is None
