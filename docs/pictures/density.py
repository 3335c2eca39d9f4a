"""Densities that flows have learned in the plane, side by side: white is none, dark much.

genai train experiment=nsf_toy2d        # and so on, for each model
python docs/pictures/density.py RUN_DIRECTORY ... TARGET.png
"""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from genai_cli import runs, schema

SIDE, REACH = 260, 2.6  # pixels of a panel; half of the square of the plane that it shows
GAP, TITLE = 12, 26  # pixels between the panels, and above them


def main(folders: list[Path], target: Path) -> None:
    width = SIDE * len(folders) + GAP * (len(folders) + 1)
    picture = Image.new("RGB", (width, SIDE + TITLE + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for index, folder in enumerate(folders):
        left = GAP + index * (SIDE + GAP)
        draw.text((left, TITLE // 2), folder.name, fill="black", font=ImageFont.load_default(size=15), anchor="lm")
        picture.paste(panel(folder), (left, TITLE))
    picture.quantize(64).save(target, optimize=True)


@torch.inference_mode()
def panel(folder: Path) -> Image.Image:
    """The density of the run's last checkpoint on a grid, the square root of it as ink."""
    config = schema.read_run_config(folder)
    cpu = torch.device("cpu")
    model = runs.load_trained(folder, config, checkpoint="last", weights="auto", device=cpu).model
    axis = torch.linspace(-REACH, REACH, SIDE)
    grid = torch.stack([axis.repeat(SIDE), axis.flip(0).repeat_interleave(SIDE)], dim=1)  # rows from the top
    density = torch.cat([(-model.density_nll(part)).exp() for part in grid.split(8192)])
    ink = (density / density.quantile(0.995)).clamp(0, 1).sqrt().view(SIDE, SIDE)
    colour = 255 - ink.unsqueeze(2) * (255 - torch.tensor([31.0, 78.0, 140.0]))
    return Image.fromarray(colour.round().to(torch.uint8).numpy())


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:-1]], Path(sys.argv[-1]))
