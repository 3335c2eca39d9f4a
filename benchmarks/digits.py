"""MNIST as others read it: torchvision's folder, written from the copy in our package."""

from pathlib import Path

from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from genai_cli.data.mnist import read_embedded


def loader(batch_size: int, *further: object) -> DataLoader:
    """The DataLoader of the tutorials: 60,000 digits, shuffled, decoded one by one by ToTensor and `further`."""
    raw = Path("MNIST/raw")
    raw.mkdir(parents=True)
    images = b"".join(read_embedded(f"train-images-{part}.xz") for part in range(4))
    (raw / "train-images-idx3-ubyte").write_bytes(images)
    (raw / "train-labels-idx1-ubyte").write_bytes(read_embedded("train-labels.xz"))
    for name in ("t10k-images", "t10k-labels"):
        kind = "idx3" if name.endswith("images") else "idx1"
        (raw / f"{name}-{kind}-ubyte").write_bytes(read_embedded(f"{name}.xz"))
    digits = datasets.MNIST(".", train=True, transform=transforms.Compose([transforms.ToTensor(), *further]))
    return DataLoader(digits, batch_size=batch_size, shuffle=True)
