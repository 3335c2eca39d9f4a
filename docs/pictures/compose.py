"""The picture of the README: the first samples of several runs, side by side under the names of their models.

genai sample run=DIR num_samples=36 seed=0 out=samples/gan        # and so on, for each model
python docs/pictures/compose.py samples/gan samples/dcgan samples/vae samples/ddpm docs/pictures/digits.png
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROWS = COLUMNS = 6
SCALE = 1.5  # of the samples' own pixels
GAP, TITLE = 24, 36  # pixels between the panels, and above them
ABREAST = 4  # panels in a row


def main(folders: list[Path], target: Path) -> None:
    panels = [panel(folder) for folder in folders]
    width, height = panels[0].width + GAP, panels[0].height + TITLE + GAP
    num_rows = -(-len(panels) // ABREAST)
    picture = Image.new("RGB", (GAP + width * min(len(panels), ABREAST), height * num_rows), "white")
    draw = ImageDraw.Draw(picture)
    for number, (folder, image) in enumerate(zip(folders, panels, strict=True)):
        left, top = GAP + number % ABREAST * width, number // ABREAST * height
        draw.text((left, top + TITLE // 2), folder.name, "black", font=ImageFont.load_default(size=18), anchor="lm")
        picture.paste(image, (left, top + TITLE))
    picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(target, optimize=True)


def panel(folder: Path) -> Image.Image:
    """The first 36 samples that `genai sample` wrote into `folder`, unchosen, on a grid."""
    images = [Image.open(folder / f"{i:05d}.png").convert("RGB") for i in range(ROWS * COLUMNS)]
    width, height = images[0].size
    grid = Image.new("RGB", (COLUMNS * width, ROWS * height))
    for i, image in enumerate(images):
        grid.paste(image, (i % COLUMNS * width, i // COLUMNS * height))
    return grid.resize((round(grid.width * SCALE), round(grid.height * SCALE)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:-1]], Path(sys.argv[-1]))
