"""A page: sections with a list of contents, and the little style that makes them readable on paper and phone."""

from dataclasses import dataclass

from genai_cli.report.html import Markup, element, escape

STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; font: 16px/1.5 system-ui, sans-serif; color: #222 }
h1 { font-size: 1.6rem; margin: .5rem 0; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ddd }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem }
a { color: #1f4e8c }
p, li { max-width: 46rem; overflow-wrap: anywhere }
.note, figcaption, summary { color: #555; font-size: .9rem }
.warning { border-left: 4px solid #c4501b; padding: .1rem .8rem; margin: 1rem 0 }
.well { border-left: 4px solid #2c7a4b; padding: .1rem .8rem }
.wide, .strip { overflow-x: auto }
.strip { display: flex; gap: .6rem }
.strip figure { flex: none }
.strip pre { width: 16rem; height: 14rem; overflow: hidden }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem }
figure { margin: .4rem 0 }
img { max-width: 100%; height: auto; image-rendering: pixelated; display: block }
.strip img { max-width: none }
svg { width: 100%; height: auto; display: block }
svg text { font: 11px system-ui, sans-serif; fill: #555 }
svg text.name { fill: #222 }
svg .grid { stroke: #e3e3e6 }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: .85rem; margin: .2rem 0 }
table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #eee; vertical-align: top }
td { min-width: 4rem }
td:first-child { white-space: nowrap }
td:last-child { overflow-wrap: anywhere }
td:last-child:not(:first-child) { min-width: 9rem }
@media (max-width: 40rem) {
  .cards tr { display: block; padding: .5rem 0; border-bottom: 1px solid #ddd }
  .cards tr:has(th), .cards td:empty { display: none }
  .cards td { display: flex; gap: .8rem; padding: .1rem 0; border: 0; white-space: normal }
  .cards td:first-child { font-weight: bold }
  .cards td:not(:first-child)::before { content: attr(data-label); flex: 0 0 7rem; color: #555 }
}
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem }
pre { background: #f6f6f7; padding: .6rem; margin: 0 0 .5rem }
"""


@dataclass(frozen=True)
class Section:
    title: str
    body: Markup

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def page(title: str, lead: Markup, sections: list[Section]) -> str:
    """The whole document. It fetches nothing: the policy in its head forbids it to."""
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    contents = element("nav", *(element("a", section.title, href=f"#{section.anchor}") for section in sections))
    parts = [element("section", element("h2", section.title), section.body, id=section.anchor) for section in sections]
    body = element("body", element("h1", title), lead, contents, *parts)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def no(words: str) -> Markup:
    """Why a section is empty."""
    return Markup(f'<p class="note">{escape(words)}</p>')
