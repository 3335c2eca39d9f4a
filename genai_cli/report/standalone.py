"""A chart as a file of its own: SVG with its title and style, and the same drawn as PNG."""

import io
from xml.etree import ElementTree

from genai_cli.report.html import Markup, escape

HEADING = 24  # height that the title takes
GRID, TEXT, NAME = "#e3e3e6", "#555555", "#222222"
FINE = 2  # drawn this much larger, then averaged: PIL's lines have no soft edges


def svg_file(chart: Markup, title: str) -> str:
    """The picture of the figure `chart`, its title above it, with the style that a page would give it."""
    start, stop = chart.index("<svg"), chart.index("</svg>")
    opened = chart.index(">", start) + 1
    tag, content = chart[start:opened], chart[opened:stop]
    width, height = (int(number) for number in ElementTree.fromstring(tag + "</svg>").attrib["viewBox"].split()[2:])
    tag = tag.replace(f'viewBox="0 0 {width} {height}"', f'viewBox="0 {-HEADING} {width} {height + HEADING}"')
    style = f"<style>text{{font:11px sans-serif;fill:{TEXT}}}.name{{fill:{NAME}}}.grid{{stroke:{GRID}}}</style>"
    heading = f'<text x="6" y="{8 - HEADING / 2}" class="name">{escape(title)}</text>'
    return f"{tag}{style}{heading}{content}</svg>\n"


def png_file(svg: str, *, scale: int = 3) -> bytes:
    """The PNG of what `svg_file` returned, `scale` pixels for each of its units."""
    from PIL import Image, ImageDraw, ImageFont

    root = ElementTree.fromstring(svg)
    left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
    unit = scale * FINE
    image = Image.new("RGB", (round(width * unit), round(height * unit)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=11 * unit)

    def place(x: str, y: str) -> tuple[float, float]:
        return (float(x) - left) * unit, (float(y) - top) * unit

    for node in root:
        kind, told = node.tag.rpartition("}")[2], node.attrib
        colour = GRID if told.get("class") == "grid" else told.get("stroke", TEXT)
        stroke = round(float(told.get("stroke-width", 1)) * unit)
        if kind == "line":
            draw.line([place(told["x1"], told["y1"]), place(told["x2"], told["y2"])], fill=colour, width=stroke)
        elif kind == "polyline":
            points = [place(*pair.split(",")) for pair in told["points"].split()]
            draw.line(points, fill=colour, width=stroke, joint="curve")
        elif kind == "circle":
            x, y = place(told["cx"], told["cy"])
            radius = float(told["r"]) * unit + stroke / 2
            box = [x - radius, y - radius, x + radius, y + radius]
            draw.ellipse(box, fill=told["fill"], outline=colour if "stroke" in told else None, width=stroke)
        elif kind == "text":
            anchor = {"middle": "ms", "end": "rs"}.get(told.get("text-anchor", ""), "ls")
            own = told.get("style", "").removeprefix("fill:")
            fill = own or (NAME if told.get("class") == "name" else TEXT)
            draw.text(place(told["x"], told["y"]), node.text or "", fill=fill, font=font, anchor=anchor)
    content = io.BytesIO()
    image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS).save(content, "PNG")
    return content.getvalue()
