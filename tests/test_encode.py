"""Facts about `genai encode`: codes are the encoder's, in the order of the data; a folder's images keep their names."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from genai_cli.cli import run
from genai_cli.commands.encode import encode, read_images, read_texts
from genai_cli.data.base import Spec, TensorSplit
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.errors import ConfigError
from genai_cli.models.ae import AutoEncoder
from genai_cli.models.bert import BERT
from genai_cli.models.cvae import CVAE
from genai_cli.models.gpt import GPT
from genai_cli.models.vqvae import VQVAE

IMAGES = Spec("image", (1, 8, 8), value_range=(-1.0, 1.0))


def split(count: int = 10) -> TensorSplit:
    image = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(7)).tanh()
    return TensorSplit({"image": image, "label": torch.arange(count)}, lambda rows: rows)


def test_codes_are_those_of_the_model_in_order():
    torch.manual_seed(0)
    model = AutoEncoder(IMAGES, latent_dim=3, width=8).eval()
    tensors = encode(model, split(), IMAGES, batch_size=4)
    torch.testing.assert_close(tensors["codes"], model.encode(split().tensors["image"]))
    assert tensors["label"].tolist() == list(range(10))


def test_a_quantiser_gives_whole_numbers():
    torch.manual_seed(0)
    model = VQVAE(IMAGES, width=8, num_codes=64, prior_width=8, prior_depth=1, prior_heads=2).eval()
    codes = encode(model, split(), IMAGES, batch_size=4)["codes"]
    assert codes.shape == (10, 4) and codes.dtype == torch.int64
    assert torch.equal(codes, model.codes_of(split().tensors["image"]))


def test_images_of_a_folder_come_at_the_size_of_the_run_with_their_names(tmp_path):
    for name, shade in (("b.png", 255), ("a.png", 0)):
        Image.new("RGB", (20, 12), (shade,) * 3).save(tmp_path / name)
    found, names = read_images(tmp_path, IMAGES)
    assert names == ["a.png", "b.png"]
    image = found.fetch(torch.arange(2))["image"]
    assert image.shape == (2, 1, 8, 8) and image[0].max() == -1 and image[1].min() == 1


def test_labels_of_a_folder_are_given_or_named_by_its_sub_folders(tmp_path):
    spec = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("cat", "dog"))
    for name in ("dog/a.png", "cat/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name)
    found, names = read_images(tmp_path, spec)
    assert names == ["cat/b.png", "dog/a.png"] and found.fetch(torch.arange(2))["label"].tolist() == [0, 1]
    assert read_images(tmp_path, spec, label=1)[0].fetch(torch.arange(2))["label"].tolist() == [1, 1]
    with pytest.raises(ConfigError, match="label=2 must be below 2, the number of classes"):
        read_images(tmp_path, spec, label=2)
    assert "label" not in read_images(tmp_path, IMAGES)[0].fetch(torch.arange(2)), "these names are no classes"


def test_an_encoder_that_is_told_the_class_reads_it_from_the_split_or_asks_for_it():
    spec = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=tuple(map(str, range(10))))
    torch.manual_seed(0)
    model = CVAE(spec, style_dim=2, width=8).eval()
    tensors = encode(model, split(), spec, batch_size=4)
    torch.testing.assert_close(tensors["codes"], model.encode_rows(split().fetch(torch.arange(10))))
    unlabelled = TensorSplit({"image": split().tensors["image"]}, lambda rows: rows)
    with pytest.raises(ConfigError, match="told the class of what it encodes"):
        encode(model, unlabelled, spec, batch_size=4)


def test_the_command_writes_a_file_and_refuses_a_model_without_an_encoder(tmp_path, capsys):
    small = ["train.steps=1", "train.sample_every=null", "device=cpu", "logger=none", "model.width=8"]
    for model in ("ae", "gan"):
        assert run(["train", f"model={model}", "dataset=toy2d", f"run.dir={tmp_path / model}", *small]) == 0
    assert run(["encode", f"run={tmp_path / 'ae'}", "split=validation", "device=cpu"]) == 0
    path = tmp_path / "ae" / "codes" / "validation.safetensors"
    assert load_file(path)["codes"].shape[1] == 30
    with safe_open(path, "pt") as opened:
        about = opened.metadata()
    assert about["data"] == "toy2d validation" and json.loads(about["names"]) == []
    assert run(["encode", f"run={tmp_path / 'gan'}", "device=cpu"]) == 2
    assert "model=gan has no encoder" in capsys.readouterr().err


def test_a_folder_is_for_models_of_images(tmp_path):
    with pytest.raises(ConfigError, match="was not trained on square images"):
        read_images(tmp_path, Spec("points", (2,)))


@pytest.mark.parametrize("kind", [BERT, GPT])
def test_texts_are_embedded_each_by_itself(kind, tmp_path):
    """A line's vector is the mean over its own tokens, whatever the other lines are."""
    spec = Spec("text", (8,), tokenizer=CharTokenizer("\nab").to_json(), vocabulary_size=3)
    torch.manual_seed(0)
    model = kind(spec, **kind.tiny).eval()
    found = {}
    for text in ("ab\nabba\n\n", "abba\n"):
        (tmp_path / "lines.txt").write_text(text)
        splits, names = read_texts(tmp_path / "lines.txt", spec)
        assert names == text.split()
        found[text] = [encode(model, split, spec, batch_size=4)["codes"] for split in splits]
    both, alone = found.values()
    assert both[0].shape == (1, 16) and torch.equal(both[1], alone[0])
    features = model.transformer(model.embedding(torch.tensor([[1, 2]])))
    torch.testing.assert_close(both[0], features.mean(1))
    (tmp_path / "lines.txt").write_text("ababababa")
    with pytest.raises(ConfigError, match="text 1 has more than the 8 tokens of a window"):
        read_texts(tmp_path / "lines.txt", spec)
