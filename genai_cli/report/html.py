"""HTML as nested function calls, in which all text is escaped unless it is markup already.

element("p", "loss < ", element("b", "3"), class_="note")  ->  <p class="note">loss &lt; <b>3</b></p>
"""

import html

VOID = {"img", "meta", "br", "path", "line", "rect", "circle", "polyline"}  # elements without content


class Markup(str):
    """Text that is HTML already."""


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """`<tag attributes>children</tag>`. `class_` is class and `stroke_width` stroke-width; None leaves one out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: str) -> Markup:
    """Children one after the other, those that are plain text escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def escape(text: str) -> str:
    """`text` as it can stand in an element or an attribute; control characters, such as ANSI codes, made visible."""
    return html.escape("".join(_visible(character) for character in text), quote=True)


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or (code >= 32 and not 127 <= code < 160 and not 0xD800 <= code < 0xE000):
        return "" if character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" else character
    return chr(0x2400 + code) if code < 32 else "\ufffd"  # the picture of the control character


def table(header: list[str], rows: list[list[str]]) -> Markup:
    """A table that scrolls sideways where it is wider than the page; with a header, a list of cards on a phone."""
    head = element("tr", *(element("th", cell) for cell in header)) if header else Markup("")
    labels = header or [None] * max(map(len, rows), default=0)
    body = (
        element("tr", *(element("td", cell, data_label=label) for cell, label in zip(row, labels, strict=False)))
        for row in rows
    )
    return element("div", element("table", head, *body, class_="cards" if header else None), class_="wide")


def details(summary: str, *children: str) -> Markup:
    """What is folded away until it is asked for."""
    return element("details", element("summary", summary), *children)


def figure(picture: Markup, caption: str = "") -> Markup:
    return element("figure", picture, element("figcaption", caption) if caption else Markup(""))
