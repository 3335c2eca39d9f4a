"""The figures of MOSES on sets that can be told by hand."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from genai_cli.commands import measure_benchmark
from genai_cli.data.base import TensorSplit
from genai_cli.metrics import molecules
from genai_cli.metrics.frechet import frechet_distance, moments
from genai_cli.metrics.moses import (
    ChemNet,
    cosine,
    fragments,
    molecules_of,
    nearest_similarity,
    passes_filters,
    read_alerts,
    scaffolds,
)

MOLECULES = ["CCO", "c1ccc2ccccc2c1", "CC(=O)Nc1ccc(O)cc1", "CC(=O)Oc1ccccc1C(=O)O"]


def test_a_molecule_of_the_reference_is_its_own_nearest() -> None:
    found = nearest_similarity(molecules_of(["CCO", "CCCl"]), molecules_of(MOLECULES))
    assert found[0] == 1 and 0 < found[1] < 1


def test_the_nearest_is_found_whichever_tile_of_the_reference_it_is_in(monkeypatch) -> None:
    monkeypatch.setattr(molecules, "_TILE", 1)
    for reference in (MOLECULES, MOLECULES[::-1]):
        assert nearest_similarity(molecules_of(["CCO", MOLECULES[-1]]), molecules_of(reference)).tolist() == [1, 1]


def test_molecules_are_compared_up_to_two_bonds_from_each_atom() -> None:
    """Octane has no surroundings of two bonds that heptane lacks; of three it has, and of two that hexane lacks."""
    heptane, hexane = (nearest_similarity(molecules_of(["C" * 8]), molecules_of(["C" * n]))[0] for n in (7, 6))
    assert heptane == 1 and hexane < 1


def test_histograms_count_fragments_and_scaffolds_of_two_rings() -> None:
    assert scaffolds(molecules_of([*MOLECULES, "Cc1ccc2ccccc2c1"])) == {"c1ccc2ccccc2c1": 2}
    parts = fragments(molecules_of(["CC(=O)Nc1ccc(O)cc1"]))  # paracetamol falls apart at its amide
    assert len(parts) > 1 and all("*" in part for part in parts)


def test_cosine_of_histograms() -> None:
    assert cosine(Counter(a=1, b=1), Counter(a=2, b=2)) == pytest.approx(1)
    assert cosine(Counter(a=1), Counter(b=1)) == 0
    assert cosine(Counter(a=3, b=4), Counter(a=1)) == pytest.approx(0.6)
    assert math.isnan(cosine(Counter(), Counter(a=1)))


def test_filters_are_atoms_charges_rings_and_the_given_lists(tmp_path) -> None:
    (tmp_path / "mcf.csv").write_text("names,smarts\nMCF1,[#6]=[#6]\n")
    (tmp_path / "wehi_pains.csv").write_text('"[#6]-[#8]-[#1]"   ,"<regId=alcohol>"\n')
    alerts = read_alerts(tmp_path)
    passed = {
        smiles: passes_filters(molecules_of([smiles])[0], alerts)
        for smiles in ("CCC", "C=CC", "CCO", "C[NH3+]", "CP", "C1CCCCCC1", "C1CCCCCCC1")
    }
    assert [smiles for smiles, is_fine in passed.items() if is_fine] == ["CCC", "C1CCCCCC1"]
    (tmp_path / "mcf.csv").write_text("names,smarts\nMCF1,[[\n")
    with pytest.raises(ValueError, match="is no SMARTS"):
        read_alerts(tmp_path)


def test_chemnet_tells_sets_apart_and_knows_one_spelling_from_no_other() -> None:
    features = ChemNet()(["CCO", "OCC", *MOLECULES[1:]])
    assert features.shape == (5, 512) and torch.equal(features[0], features[1])
    assert frechet_distance(moments(features), moments(features)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(moments(features[:3]), moments(features[2:])) > 0.1


def test_fewer_molecules_than_there_are_come_evenly_from_the_whole_split(monkeypatch) -> None:
    class Rows(TensorSplit):
        def __init__(self):
            super().__init__({"tokens": torch.arange(10)}, lambda rows: rows)

    monkeypatch.setattr(
        measure_benchmark, "tokens_to_texts", lambda tokens, spec: [str(int(token)) for token in tokens]
    )
    assert measure_benchmark._spelled(Rows(), SimpleNamespace(spec=None), 4) == ["0", "2", "5", "7"]
    assert len(measure_benchmark._spelled(Rows(), SimpleNamespace(spec=None), 40)) == 10
