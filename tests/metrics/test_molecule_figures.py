"""Figures of molecules: their definitions on sets that can be counted by hand."""

import sys

import pytest

from genai_cli.metrics.molecules import internal_diversity, molecule_figures


def test_figures_are_those_of_the_definitions() -> None:
    samples = ["CCO", "OCC", "c1ccccc1", "C1CC", "", "CCN"]  # ethanol twice, two that are none
    figures = molecule_figures(samples, known={"CCO"})
    assert figures["judge"] == "rdkit" and figures["count"] == 6
    assert figures["valid"] == figures["well_formed"] == 4 / 6
    assert figures["unique"] == 3 / 4
    assert figures["novel"] == pytest.approx(2 / 3)
    assert 0 < figures["internal_diversity"] < 1


def test_copies_have_no_diversity() -> None:
    assert internal_diversity(["CCO"] * 5) == pytest.approx(0)


def test_without_rdkit_spelling_decides(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    figures = molecule_figures(["CCO", "OCC", "CCO", "C1CC"], known=["CCO"])
    assert figures == {"judge": "syntax", "count": 4, "valid": 0.75, "well_formed": 0.75, "unique": 2 / 3, "novel": 0.5}


def test_nothing_valid_is_said() -> None:
    assert molecule_figures(["C(", ""])["valid"] == 0
