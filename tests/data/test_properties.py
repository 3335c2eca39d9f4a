"""Molecules asked to have a property: the token before them says it, and costs nothing where none is asked."""

import pytest
import torch

from genai_cli.data.molecules import UNASKED_EVERY, molecule_split
from genai_cli.data.properties import PROPERTIES, Property, values_of
from genai_cli.data.smiles_tokens import SmilesTokenizer
from genai_cli.data.tokenizers import tokenizer_from_json

TOKENS = ["(", ")", "1", "=", "C", "N", "O", "c"]
ASKING = SmilesTokenizer(TOKENS, PROPERTIES["logp"])


def test_a_value_falls_into_the_bin_whose_centre_is_nearest() -> None:
    asked = Property("logp", -1.0, 1.0, 4)
    assert [asked.bin_of(value) for value in (-9.0, -1.0, -0.4, 0.0, 0.6, 9.0)] == [0, 0, 1, 2, 3, 3]
    assert [asked.centre(i) for i in range(4)] == [-0.75, -0.25, 0.25, 0.75]


def test_rdkit_computes_them_and_says_what_is_none() -> None:
    ethanol, broken = values_of("logp", ["CCO", "C("])
    assert ethanol == pytest.approx(-0.0014, abs=1e-4) and broken is None
    assert values_of("weight", ["CCO"])[0] == pytest.approx(46.07, abs=0.01)


def test_rows_begin_with_their_own_property_and_some_to_train_on_with_none() -> None:
    molecules = ["CCO", "c1ccccc1"] * 10
    rows = {
        is_training: molecule_split(molecules, ASKING, length=12, source="test", is_training=is_training).fetch(
            torch.arange(20)
        )
        for is_training in (False, True)
    }
    expected = [ASKING.asking({"logp": value}) for value in values_of("logp", molecules)]
    assert rows[False]["tokens"][:, 0].tolist() == expected
    unasked = [i for i, token in enumerate(rows[True]["tokens"][:, 0].tolist()) if token == 0]
    assert unasked == list(range(0, 20, UNASKED_EVERY))
    plain = molecule_split(molecules, SmilesTokenizer(TOKENS), length=12, source="test").fetch(torch.arange(20))
    assert torch.equal(rows[False]["tokens"][:, 1:], plain["tokens"][:, 1:])
    assert torch.equal(rows[False]["mask"], plain["mask"])


def test_the_tokenizer_travels_as_json_and_reads_past_what_was_asked() -> None:
    again = tokenizer_from_json(ASKING.to_json())
    assert again.vocabulary_size == ASKING.vocabulary_size == 1 + len(TOKENS) + 48
    token = again.asking({"logp": 2.5})
    assert again.decode(torch.tensor([token, *again.encode("CC=O"), 0])) == "CC=O"
    with pytest.raises(ValueError, match="learned logp, and nothing else"):
        again.asking({"qed": 0.5})
    with pytest.raises(ValueError, match="learned no property"):
        SmilesTokenizer(TOKENS).asking({"logp": 1})
    with pytest.raises(ValueError, match="is no property"):
        tokenizer_from_json({"name": "smiles", "tokens": TOKENS, "asked": {"nome": "logp"}})


def test_a_grammar_lets_no_property_through_but_before_a_molecule() -> None:
    grammar = ASKING.grammar(2)
    grammar.advance(torch.tensor([0, ASKING.asking({"logp": 1.0})]))
    allowed = grammar.allowed(9)
    assert allowed.shape == (2, ASKING.vocabulary_size) and torch.equal(allowed[0], allowed[1])
    assert not allowed[:, 1 + len(TOKENS) :].any() and allowed[:, 5].all()
