"""The data sets of molecules: splits that share nothing, masks that end with the molecule, files with flaws."""

import gzip
import hashlib

import pytest
import torch

from genai_cli.data import moses, qm9
from genai_cli.data.base import DataError
from genai_cli.data.moses import Moses
from genai_cli.data.qm9 import Qm9
from genai_cli.data.smiles import Smiles

SPLITS = ("train", "validation", "test")


def molecules_of(dataset, split: str) -> list[str]:
    windows = dataset.load(split)
    return [dataset.tokenizer.decode(row) for row in windows.fetch(torch.arange(len(windows)))["tokens"]]


@pytest.fixture
def qm9_root(tmp_path, monkeypatch):
    molecules = [f"{a}{'C' * i}{b}" for i in range(1, 9) for a in ("C", "N", "O", "C#C") for b in ("", "O", "N", "C=O")]
    content = "\n".join(["smiles", *molecules]).encode() + b"\n"
    (tmp_path / "qm9").mkdir()
    (tmp_path / "qm9" / "qm9.csv.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(qm9, "SHA256", hashlib.sha256(content).hexdigest())
    return str(tmp_path)


def test_qm9_is_whole_and_its_splits_share_nothing(qm9_root) -> None:
    data = Qm9(root=qm9_root)
    parts = [set(molecules_of(data, name)) for name in SPLITS]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts)) == 128
    assert all("" not in part for part in parts)


def test_qm9_that_is_not_there_or_another_is_refused(qm9_root, tmp_path) -> None:
    with pytest.raises(DataError, match=r"qm9/qm9.csv .*dataset.download=true"):
        Qm9(root=str(tmp_path / "none")).load("train")
    (tmp_path / "qm9" / "qm9.csv.gz").write_bytes(gzip.compress(b"smiles\nC\n"))
    with pytest.raises(DataError, match="is not the original file"):
        Qm9(root=qm9_root).load("test")


def test_targets_end_with_the_end_of_the_molecule(tmp_path) -> None:
    path = tmp_path / "few.smi"
    path.write_text("SMILES,logp\n" + "\n".join(f"{'C' * i}O,1" for i in range(1, 30)) + "\n")
    data = Smiles(path=str(path), validation=0.3, test=0.3)
    assert data.spec.modality == "molecules" and data.spec.shape == (31,)
    rows = data.load("train").fetch(torch.tensor([0, 1]))
    for tokens, mask in zip(rows["tokens"], rows["mask"], strict=True):
        size = len(data.tokenizer.decode(tokens))
        assert mask.sum() == size + 1 and mask[: size + 1].all()
        assert tokens[0] == 0 and (tokens[1 : size + 1] > 0).all() and (tokens[size + 1 :] == 0).all()
    parts = [set(molecules_of(data, name)) for name in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 29


def test_lines_that_are_no_molecules_are_named(tmp_path) -> None:
    path = tmp_path / "flawed.smi"
    path.write_text("\n".join(["CCO"] * 40 + ["C1CC", *["CCN"] * 40]))
    with pytest.raises(DataError, match=r"(?s)1 of the 81 .*max_broken=0.01:.*line 41: ring 1 is not closed"):
        Smiles(path=str(path))
    data = Smiles(path=str(path), max_broken=0.1)
    assert "1 of 81 lines were left out" in data.notes[0] and "C1CC" not in data.molecules
    with pytest.raises(DataError, match="is not there"):
        Smiles(path=str(tmp_path / "none"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "moses").mkdir()
    for name, header, count in (("train", "SMILES", 250), ("test", "SMILES", 5), ("test_scaffolds", "SMILES", 7)):
        content = "\n".join([header, *(f"{'C' * (1 + i % 50)}N" for i in range(count))]).encode() + b"\n"
        (tmp_path / "moses" / f"{name}.csv.gz").write_bytes(gzip.compress(content))
        monkeypatch.setitem(moses.SHA256, name, hashlib.sha256(content).hexdigest())
    return str(tmp_path)


def test_moses_keeps_the_splits_of_the_benchmark(root) -> None:
    assert [len(Moses(root=root).load(name)) for name in SPLITS] == [247, 3, 5]
    assert len(Moses(root=root, test="test_scaffolds").load("test")) == 7


def test_some_of_the_molecules_of_moses_come_evenly_from_all_of_them(root) -> None:
    every = Moses(root=root).load("train").tensors["tokens"]
    few, most = (Moses(root=root, size=size).load("train").tensors["tokens"] for size in (10, 1000))
    assert torch.equal(few, every[[0, 24, 49, 74, 98, 123, 148, 172, 197, 222]])
    assert torch.equal(most, every)


def test_moses_that_is_not_there_or_another_is_refused(root, tmp_path) -> None:
    with pytest.raises(DataError, match=r"moses/train.csv .*molsets 0.3.1"):
        Moses(root=str(tmp_path / "none")).load("train")
    (tmp_path / "moses" / "test.csv.gz").write_bytes(gzip.compress(b"SMILES\nC\n"))
    with pytest.raises(DataError, match="is not the original file"):
        Moses(root=root).load("test")


def test_too_few_molecules_are_answered_with_the_keys_that_help(tmp_path):
    path = tmp_path / "few.smi"
    path.write_text("CCO\nCCN\n" * 20)
    with pytest.raises(DataError, match=r"is empty, of 40 molecules: .* such as dataset\.validation=0\.2"):
        [Smiles(path=str(path)).load(split) for split in ("train", "validation", "test")]
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no SMILES"):
        Smiles(path=str(path))
