"""Fashion-MNIST: 70,000 pictures of clothes in MNIST's format (Xiao, Rasul and Vollgraf 2017).

Read from torchvision's layout, ROOT/FashionMNIST/raw; `dataset.download=true` lets torchvision fetch the files.
"""

from pathlib import Path

from genai_cli.data.base import DataError, Dataset, SplitName, TensorSplit
from genai_cli.data.download import file_lock
from genai_cli.data.idx import FILES, find_raw, has_all_files, read_images
from genai_cli.data.pixels import image_spec, image_split, training_range
from genai_cli.data.places import missing, roots
from genai_cli.rules import PositiveInt

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CHECKSUMS = {  # md5, torchvision's list
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


class FashionMnist(Dataset):
    """Pictures of clothes, 28 x 28 grey, 55,000 / 5,000 / 10,000; `dataset.download=true` fetches them."""

    modality = "image"
    rules = {"validation < 60000": "validation must be below 60000, the number of training images"}

    def __init__(self, *, root: str | None = None, download: bool = False, validation: PositiveInt = 5000):
        self.root = root
        self.download = download
        self.validation = validation
        self.spec = image_spec(1, 28, 28, CLASSES)

    def load(self, split: SplitName) -> TensorSplit:
        raw = self._find()
        if split == "test":
            return image_split(*read_images(raw, "test", CHECKSUMS))
        images, labels = read_images(raw, "train", CHECKSUMS)
        start, stop = training_range(split, len(images), self.validation)
        return image_split(images[start:stop], labels[start:stop])

    def _find(self) -> Path:
        raw = find_raw(self.root, "FashionMNIST")
        if self.download and not (raw and has_all_files(raw)):
            return fetch(raw.parent.parent if raw else roots(self.root)[0])
        if raw is None:
            files = ", ".join(f"{name}.gz" for names in FILES.values() for name in names)
            remedy = f"put {files} there, or let dataset.download=true fetch them (31 MB)"
            raise missing("Fashion-MNIST", self.root, ["FashionMNIST/raw"], remedy=remedy)
        return raw


def fetch(root: Path) -> Path:
    """Let torchvision put the files, checked against its md5 sums, into `root`/FashionMNIST/raw."""
    from torchvision.datasets import FashionMNIST

    with file_lock(root / ".fashion_mnist.lock"):
        try:
            FashionMNIST(str(root), download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"Fashion-MNIST could not be downloaded into {root}: {error}") from error
    return root / "FashionMNIST" / "raw"
