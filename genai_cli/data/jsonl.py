"""Documents from a file with a JSON object on each line. `genai train model=gpt dataset=jsonl dataset.path=FILE`

`dataset.template` makes a text of an object's keys: by default its "prompt" and "response" where it has them, else its
"text". Which split a document belongs to follows from its text.
"""

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from genai_cli.data.base import DataError, Dataset, SplitName
from genai_cli.data.documents import DocumentCorpus
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.data.windows import TokenWindows, decode_utf8, read_text
from genai_cli.rules import Fraction, PositiveInt

PAIR = "{prompt}\n{response}\n\n"
TEXT = "{text}\n\n"


class Jsonl(Dataset):
    """Texts, or prompts and responses, a JSON object a line: `dataset.path=FILE`."""

    modality = "text"
    rules = {
        "tokenizer != 'bpe' or vocabulary > 256": "bpe needs a vocabulary above 256: every byte is a token",
        "tokenizer == 'bpe' or vocabulary == 1024": "vocabulary belongs to tokenizer=bpe",
        "validation > 0 and test > 0 and validation + test < 1": "validation, test must be above 0, together below 1",
    }

    def __init__(
        self,
        *,
        path: str,
        template: str | None = None,  # such as "{question} = {answer}\n"
        length: PositiveInt = 64,  # tokens that a prediction may look back on
        tokenizer: Literal["char", "byte", "bpe"] = "char",
        vocabulary: PositiveInt = 1024,  # tokens of bpe, 256 of them bytes
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
    ):
        place = Path(path).expanduser()
        if not place.is_file():
            raise DataError(f"dataset.path={path} is not there: give a file with a JSON object on each line")
        lines = decode_utf8(read_text(place), str(place)).splitlines()
        documents = [
            fill(template, record, f"line {number} of {place}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
            for record in [parse(line, f"line {number} of {place}")]
        ]
        self.corpus = DocumentCorpus(
            documents, source=str(place), tokenizer=tokenizer, vocabulary=vocabulary, length=length,
            validation=validation, test=test,
        )  # fmt: skip
        self.spec = self.corpus.spec

    def load(self, split: SplitName) -> TokenWindows:
        return self.corpus.split(split)

    def adopt(self, tokenizer: Mapping[str, Any]) -> None:
        self.corpus.adopt(tokenizer_from_json(tokenizer))
        self.spec = self.corpus.spec


def parse(line: str, where: str) -> dict[str, Any]:
    rule = 'no JSON object, such as {"text": ...}, and each line must be one'
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is {rule}: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{where} is {rule}")
    return record


def fill(template: str | None, record: dict[str, Any], where: str) -> str:
    """The text of a record. Raises DataError where a key is missing."""
    if template is None:
        template = PAIR if "prompt" in record and "response" in record else TEXT
    parts = []
    for literal, key, _, _ in string.Formatter().parse(template):  # looked up, not formatted: no attributes, no calls
        parts.append(literal)
        if key is not None:
            if key not in record:
                raise DataError(f"{where} has no key {key!r}, which dataset.template asks for; it has {list(record)}")
            parts.append(str(record[key]))
    return "".join(parts)
