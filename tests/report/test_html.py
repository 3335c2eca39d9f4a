"""Whatever text a page is made of, it stays text; and a page asks nothing of the network."""

from html.parser import HTMLParser

import pytest

from genai_cli.doctor.findings import CATALOGUE, Finding
from genai_cli.report import sections
from genai_cli.report.html import element, escape, join, table
from genai_cli.report.page import Section, page

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31mred\x00\u202egnp\n../../etc"


class Tree(HTMLParser):
    """The elements of a page; fails on one that is closed out of turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_is_escaped_and_markup_is_not_escaped_twice():
    assert element("p", "a < ", element("b", "b"), class_="x") == '<p class="x">a &lt; <b>b</b></p>'
    assert join("<", element("br")) == "&lt;<br/>"


def test_attributes_are_escaped():
    tag = Tree(element("img", alt=HOSTILE, src=None)).tags[0]
    assert list(tag[1]) == ["alt"] and "<script>" in tag[1]["alt"]


def test_control_characters_are_shown_and_do_nothing():
    assert escape("\x1b[31m\x07\u202e\x9b") == "\u241b[31m\u2407\ufffd"
    assert escape("tab\tline\n") == "tab\tline\n"


def hostile_page() -> str:
    record = {
        "metrics": [{"name": HOSTILE, "value": HOSTILE, "protocol": {HOSTILE: [HOSTILE]}, "controls": {HOSTILE: None}}],
        "notes": [HOSTILE], "created": HOSTILE,
    }  # fmt: skip
    finding = Finding("mode_collapse", 5, 4, HOSTILE)
    lines = [{"step": step, HOSTILE: step, "x/loss": step**9, "bad": HOSTILE} for step in range(1, 400)]
    parts = [
        Section("Samples", element("pre", HOSTILE)),
        sections.film([(3, element("pre", HOSTILE))]),
        sections.doctor([finding], [finding], {HOSTILE: 1.0}),
        sections.metrics(record),
        sections.curves(lines),
        sections.background({"prompt": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}}, {"command": HOSTILE}),
    ]
    return page(HOSTILE, element("p", HOSTILE), parts)


def test_a_hostile_page_holds_no_script_and_no_address():
    tree = Tree(hostile_page().partition("\n")[2])
    tags = {tag for tag, _ in tree.tags}
    assert "script" not in tags and tags <= ALLOWED
    for _, attributes in tree.tags:
        assert not any(name.startswith("on") for name in attributes)
        links = [attributes[name] for name in ("src", "href") if attributes.get(name)]
        assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert tree.text.count("<script>") > 10, "it is there to be read"
    assert "\x1b" not in tree.text and "\x00" not in tree.text


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "nav", "section", "h1", "h2", "p", "a", "b", "ul", "li", "div",
    "span", "table", "tr", "th", "td", "details", "summary", "figure", "figcaption", "pre", "img", "svg", "line",
    "text", "polyline", "circle",
}  # fmt: skip


@pytest.mark.parametrize("record", [None, {}, {"metrics": 3}, {"metrics": [1, {"name": None, "interval": "x"}]}])
def test_a_record_of_any_form_makes_a_section(record):
    Tree(sections.metrics(record).body)


def test_a_table_has_a_row_for_each_entry():
    tags = [tag for tag, _ in Tree(table(["a", "b"], [["1", "2"], ["3", "4"]])).tags]
    assert tags.count("tr") == 3 and tags.count("td") == 4


def test_every_finding_says_what_it_means_and_what_to_change():
    found = [Finding(name, 10, 5, "evidence") for name in CATALOGUE]
    text = Tree(sections.doctor(found, [], {}).body).text
    assert text.count("What to change") == len(CATALOGUE)
