"""Tiny Shakespeare: 1,115,394 characters of the plays (Karpathy 2015), 65 of them distinct.

The test split is the last tenth, which nanoGPT calls its validation set; so figures compare. It is not in the package:
`genai train model=gpt dataset=shakespeare dataset.download=true`, or put input.txt where the error says.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from genai_cli.data.base import DataError, Dataset, SplitName
from genai_cli.data.download import download
from genai_cli.data.places import find, missing, roots
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.data.windows import Corpus, TokenWindows, read_text
from genai_cli.rules import Fraction, PositiveInt

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
URLS = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
)
FOLDERS = ("tinyshakespeare", "text/tinyshakespeare")
FILES = ("input.txt", "input.txt.xz", "input.txt.gz")


class Shakespeare(Dataset):
    """Shakespeare's plays, 1,115,394 characters, by character or byte; `dataset.download=true` fetches them."""

    modality = "text"
    rules = {
        "tokenizer != 'bpe' or vocabulary > 256": "bpe needs a vocabulary above 256: every byte is a token",
        "tokenizer == 'bpe' or vocabulary == 1024": "vocabulary belongs to tokenizer=bpe",
        "validation > 0 and test > 0 and validation + test < 1": "validation, test must be above 0, together below 1",
    }

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        length: PositiveInt = 64,  # tokens that a prediction may look back on
        tokenizer: Literal["char", "byte", "bpe"] = "char",
        vocabulary: PositiveInt = 1024,  # tokens of bpe, 256 of them bytes
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
    ):
        content = read_shakespeare(root, may_download=download)
        self.corpus = Corpus(
            content,
            source="tinyshakespeare",
            tokenizer=tokenizer,
            length=length,
            validation=validation,
            test=test,
            vocabulary=vocabulary,
        )
        self.spec = self.corpus.spec

    def load(self, split: SplitName) -> TokenWindows:
        return self.corpus.split(split)

    def adopt(self, tokenizer: Mapping[str, Any]) -> None:
        self.corpus.adopt(tokenizer_from_json(tokenizer))
        self.spec = self.corpus.spec


def read_shakespeare(root: str | None, *, may_download: bool) -> bytes:
    names = [f"{folder}/{file}" for folder in FOLDERS for file in FILES]
    path = find(root, names)
    if path is None and may_download:
        path = download(URLS, roots(root)[0] / names[0], SHA256)
    if path is None:
        remedy = "put the file there (as it is, or .xz, .gz), or let dataset.download=true fetch it (1.1 MB)"
        raise missing("tinyshakespeare", root, [names[0]], remedy=remedy)
    content = read_text(path)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f"{path} is not the original text, its sha256 differs: remove it and fetch it again")
    return content
