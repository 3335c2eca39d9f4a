"""A folder of images: every kind of broken file is named, labels and splits follow from names and pixels alone."""

import os
import pickle
import struct
import zlib

import numpy
import pytest
import torch
from PIL import Image

from genai_cli.data.base import DataError
from genai_cli.data.folder import Folder
from genai_cli.data.pictures import BrokenImage, image_paths, read_picture, to_pixels


def picture(number: int, size: tuple[int, int] = (12, 9)) -> Image.Image:
    generator = numpy.random.default_rng(number)
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8))


def fill(folder, count: int, *, start: int = 0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        picture(number).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def pets(tmp_path):
    """Two classes of 30 images."""
    fill(tmp_path / "pets" / "cat", 30)
    fill(tmp_path / "pets" / "dog", 30, start=30)
    return tmp_path / "pets"


def load_all(dataset: Folder) -> dict[str, dict[str, torch.Tensor]]:
    splits = {name: dataset.load(name) for name in ("train", "validation", "test")}
    return {name: split.fetch(torch.arange(len(split))) for name, split in splits.items()}


def contents(rows: dict[str, torch.Tensor]) -> set[bytes]:
    return {image.numpy().tobytes() for image in rows["image"]}


OPTIONS = {"image_size": 8, "validation": 0.2, "test": 0.2}


def test_labels_are_the_names_of_sub_folders(pets):
    dataset = Folder(path=str(pets), **OPTIONS)
    assert dataset.spec.classes == ("cat", "dog") and dataset.spec.shape == (3, 8, 8)
    rows = load_all(dataset)
    assert sum(len(part["label"]) for part in rows.values()) == 60
    cats = {to_pixels(picture(number), size=8, channels=3).numpy().tobytes() for number in range(30)}
    for part in rows.values():
        pixels = ((part["image"] + 1) * 127.5).round().to(torch.uint8)
        assert [row.numpy().tobytes() in cats for row in pixels] == [label == 0 for label in part["label"]]


def test_images_in_the_folder_itself_have_no_labels(tmp_path):
    dataset = Folder(path=str(fill(tmp_path / "flat", 20)), **OPTIONS)
    assert dataset.spec.classes == () and "label" not in dataset.load("train").fetch(torch.tensor([0]))


def test_duplicates_never_straddle_splits(pets):
    for number in range(60):  # each image again, in another file format and under another name
        picture(number).save(pets / ("dog" if number % 2 else "cat") / f"copy-{number}.bmp")
    parts = [contents(part) for part in load_all(Folder(path=str(pets), **OPTIONS)).values()]
    assert sum(map(len, parts)) == 60 == len(set.union(*parts))


def test_a_new_file_moves_no_other(pets):
    before = load_all(Folder(path=str(pets), **OPTIONS))
    fill(pets / "ant", 5, start=100)
    after = load_all(Folder(path=str(pets), **OPTIONS))
    for name in before:
        assert contents(before[name]) <= contents(after[name])


def test_split_does_not_depend_on_size_or_channels(pets):
    small = Folder(path=str(pets), **OPTIONS)
    large = Folder(path=str(pets), **{**OPTIONS, "image_size": 16, "channels": 1})
    for name in ("train", "validation", "test"):
        assert small.load(name).tensors["label"].equal(large.load(name).tensors["label"])
    assert large.load("train").fetch(torch.tensor([0]))["image"].shape == (1, 1, 16, 16)


def test_order_does_not_depend_on_the_file_system(pets, monkeypatch):
    expected = Folder(path=str(pets), **OPTIONS).load("train").content_hash()
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
    assert Folder(path=str(pets), **OPTIONS).load("train").content_hash() == expected


def test_large_folder_streams_the_same_images(pets, monkeypatch):
    held, streamed = Folder(path=str(pets), **OPTIONS), Folder(path=str(pets), **OPTIONS)
    monkeypatch.setattr(streamed, "memory_limit", 0)
    assert not held.load("train").streams and streamed.load("train").streams
    for name in ("train", "validation", "test"):
        split = pickle.loads(pickle.dumps(streamed.load(name)))  # as a worker process gets it
        positions = torch.arange(len(split)).flip(0)
        for key, rows in held.load(name).fetch(positions).items():
            assert torch.equal(split.fetch(positions)[key], rows)
    train = streamed.load("train")
    assert train.content_hash() == streamed.load("train").content_hash() != streamed.load("test").content_hash()
    os.remove(pets / train.names[0])
    with pytest.raises(DataError, match=r"could be read before, but not now"):
        train.fetch(torch.tensor([0]))


def scanned_slowly(folder, monkeypatch, cache):
    """A large folder, whose scan is worth remembering, and the names of the files that are read."""
    read = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("genai_cli.data.folder.WORTH_REMEMBERING", -1.0)
    monkeypatch.setattr("genai_cli.data.folder.read_picture", lambda path: read.append(path.name) or read_picture(path))
    dataset = Folder(path=str(folder), **OPTIONS, max_broken=0.2)
    monkeypatch.setattr(dataset, "memory_limit", 0)
    return dataset.load("train").content_hash(), dataset.notes, read


def test_a_file_is_scanned_once_and_again_when_it_changes(pets, monkeypatch, tmp_path):
    add_broken_files(pets / "cat")
    first, notes, read = scanned_slowly(pets, monkeypatch, tmp_path / "cache")
    assert len(read) == 68 and "9 of 69" in notes[0]
    again, same, read = scanned_slowly(pets, monkeypatch, tmp_path / "cache")
    assert (again, same) == (first, notes)
    assert sorted(read) == ["dangling.png", "self.png"]  # which have no size to know them by
    picture(700).save(pets / "dog" / "new.png")
    picture(701).save(pets / "cat" / "empty.png")
    os.utime(pets / "dog" / "030.png", ns=(0, 0))
    other, notes, read = scanned_slowly(pets, monkeypatch, tmp_path / "cache")
    assert sorted(read) == ["030.png", "dangling.png", "empty.png", "new.png", "self.png"]
    assert "8 of 70" in notes[0] and "empty.png" not in notes[0]
    (note,) = (tmp_path / "cache").rglob("*.json")
    for spoilt in ("{", "[]", '{"format": 1}', note.read_text().replace('"format": 1', '"format": 2'), '{"files": 3}'):
        note.write_text(spoilt)
        fresh, same, read = scanned_slowly(pets, monkeypatch, tmp_path / "cache")
        assert (fresh, same, len(read)) == (other, notes, 69)


def png_of(width: int, height: int) -> bytes:
    """A small valid PNG file that claims a huge size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def add_broken_files(folder) -> dict[str, str]:
    """One of each kind; name -> a part of the reason that is given for it."""
    picture(500, (64, 64)).save(folder / "whole.jpeg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpeg").read_bytes()[:-900])
    (folder / "whole.jpeg").unlink()
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_text("<html>404</html>")
    (folder / "bomb.png").write_bytes(png_of(20_000, 20_000))
    (folder / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(numpy.zeros((4, 4), numpy.float32)).save(folder / "float.tiff")
    os.symlink(folder / "self.png", folder / "self.png")
    os.symlink(folder / "gone", folder / "dangling.png")
    os.symlink(folder, folder / "loop")
    return {
        "truncated.jpg": "truncated",
        "empty.png": "0 bytes",
        "page.png": "not an image",
        "bomb.png": "400000000 pixels",
        "script.png": "not an image",
        "float.tiff": "floating-point",
        "self.png": "symbolic links",
        "dangling.png": "No such file",
        "loop": "leads back to a folder above it",
    }


def test_too_many_broken_files_stop_and_all_are_named(pets):
    reasons = add_broken_files(pets / "cat")
    with pytest.raises(DataError) as error:
        Folder(path=str(pets), **OPTIONS).load("train")
    lines = str(error.value).splitlines()
    assert f"9 of the 69 images in {pets} cannot be read" in lines[0] and "dataset.max_broken=0.01" in lines[0]
    for name, reason in reasons.items():
        assert [reason in line for line in lines if f"cat/{name}: " in line] == [True], (name, lines)


def test_few_broken_files_are_left_out_and_counted(pets):
    expected = Folder(path=str(pets), **OPTIONS).load("train").content_hash()
    add_broken_files(pets / "cat")
    dataset = Folder(path=str(pets), **OPTIONS, max_broken=0.2)
    assert dataset.load("train").content_hash() == expected
    assert dataset.notes[0].startswith("9 of 69 images were left out:") and "cat/bomb.png" in dataset.notes[0]


def test_long_reports_are_cut(tmp_path):
    for number in range(30):
        (fill(tmp_path / "a", 1) / f"bad-{number:02d}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"bad-19\.png: 0 bytes\n  and 10 more$"):
        Folder(path=str(tmp_path), **OPTIONS).load("train")


def test_hidden_and_other_files_are_passed_over_and_linked_folders_followed(tmp_path):
    fill(tmp_path / "images" / "b", 1)
    fill(tmp_path / "elsewhere", 1, start=1)
    (tmp_path / "images" / "b" / "._000.png").write_bytes(b"")
    (tmp_path / "images" / "b" / "readme.txt").write_bytes(b"")
    os.symlink(tmp_path / "elsewhere", tmp_path / "images" / "a")
    assert list(image_paths(tmp_path / "images")) == [("a/001.png", None), ("b/000.png", None)]


def test_file_name_that_is_no_utf8_can_be_reported(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (fill(tmp_path / "a", 3) / name).write_bytes(b"")
    with pytest.raises(DataError) as error:
        Folder(path=str(tmp_path)).load("train")
    assert r"a/caf\udce9.png: 0 bytes" in str(error.value)
    str(error.value).encode()


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=rf"dataset\.path={tmp_path}/none is not a folder"):
        Folder(path=str(tmp_path / "none"))
    with pytest.raises(DataError, match="holds no images"):
        Folder(path=str(tmp_path)).load("train")
    with pytest.raises(DataError, match=r"is empty \(images that differ: 1\): .* such as dataset\.validation=0\.2"):
        load_all(Folder(path=str(fill(tmp_path / "one", 1))))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("1", "png"), ("P", "gif"), ("CMYK", "tiff"), ("CMYK", "jpg"), ("YCbCr", "jpg")]
)
def test_every_mode_becomes_rgb(tmp_path, mode, suffix):
    grey = Image.new("RGB", (8, 8), (255, 255, 255))
    grey.convert(mode).save(tmp_path / f"a.{suffix}")
    image = read_picture(tmp_path / f"a.{suffix}")
    assert image.mode == "RGB" and numpy.asarray(image).min() >= 250


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    levels = numpy.array([[0, 257 * 100, 65535]], dtype=numpy.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert numpy.asarray(read_picture(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 100, 255]
    Image.fromarray(numpy.array([[70_000]], dtype=numpy.int32)).save(tmp_path / "b.tiff")
    with pytest.raises(BrokenImage, match="32 bits"):
        read_picture(tmp_path / "b.tiff")


def test_transparent_pixels_are_white_and_turned_photographs_upright(tmp_path):
    Image.new("RGBA", (4, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert numpy.asarray(read_picture(tmp_path / "a.png")).min() == 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (4, 2)).save(tmp_path / "b.jpg", exif=exif)
    assert read_picture(tmp_path / "b.jpg").size == (2, 4)


def test_the_centred_square_is_kept():
    levels = numpy.zeros((4, 8, 3), numpy.uint8)
    levels[:, 2:6] = 200  # the middle of a wide picture
    assert (to_pixels(Image.fromarray(levels), size=4, channels=1) == 200).all()
