"""Your own molecules: a file with a SMILES at the beginning of each line.

`genai train model=gpt dataset=smiles dataset.path=FILE`

What follows a SMILES on its line, after white space or a comma, is left out; so is a first line that is no molecule.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from genai_cli.data.base import DataError, Dataset, SplitName, TensorSplit
from genai_cli.data.molecules import longest, molecule_spec, molecule_split
from genai_cli.data.properties import PROPERTIES
from genai_cli.data.shares import share_of, split_of
from genai_cli.data.smiles_tokens import SmilesTokenizer, problem_of, smiles_tokenizer_from_json
from genai_cli.data.windows import decode_utf8, read_text
from genai_cli.rules import Fraction

MOST_TOKENS = 255


class Smiles(Dataset):
    """Your own molecules, a SMILES a line: `dataset.path=FILE`."""

    modality = "molecules"
    rules = {
        "validation > 0 and test > 0 and validation + test < 1": "validation and test must be above 0, together below 1"
    }

    def __init__(
        self,
        *,
        path: str,
        validation: Fraction = 0.05,
        test: Fraction = 0.1,
        max_broken: Fraction = 0.01,  # the share of lines that may be no well-formed SMILES
        condition: Literal["logp", "qed", "weight"] | None = None,  # what can be asked for
    ):
        self.path = Path(path).expanduser()
        self.validation, self.test = validation, test
        if not self.path.is_file():
            raise DataError(f"dataset.path={path} is not there: give a file with a SMILES on each line")
        self.molecules = self._read(max_broken)
        known = SmilesTokenizer.of_molecules("\n".join(self.molecules))
        self.tokenizer = SmilesTokenizer(known.tokens, PROPERTIES.get(condition or ""))
        if self.tokenizer.vocabulary_size > MOST_TOKENS:
            raise DataError(f"{self.path} has more than {MOST_TOKENS} different atoms and bonds: is it of SMILES?")
        self.length = longest(self.molecules) + 1
        self.spec = molecule_spec(self.tokenizer, self.length)

    def load(self, split: SplitName) -> TensorSplit:
        shares = {"validation": self.validation, "test": self.test}
        molecules = [smiles for smiles in self.molecules if split_of(share_of(smiles), **shares) == split]
        source = f"the {split} split of {self.path}"
        if not molecules:
            raise DataError(
                f"{source} is empty, of {len(self.molecules)} molecules: add some, or change the shares, "
                "such as dataset.validation=0.2 dataset.test=0.2"
            )
        return molecule_split(
            molecules, self.tokenizer, length=self.length, source=source, is_training=split == "train"
        )

    def adopt(self, tokenizer: Mapping[str, Any]) -> None:
        """Raises DataError, naming them, for atoms and bonds that the run did not know."""
        known = smiles_tokenizer_from_json(tokenizer)
        unknown = sorted(set(self.tokenizer.tokens) - set(known.tokens))
        if unknown:
            raise DataError(
                f"{self.path} has {', '.join(unknown[:20])}, which the vocabulary of init lacks: leave such molecules "
                "out, or start from a run whose data have them"
            )
        self.tokenizer, self.spec = known, molecule_spec(known, self.length)

    def _read(self, max_broken: float) -> list[str]:
        lines = decode_utf8(read_text(self.path), str(self.path)).splitlines()
        first = [re.split(r"[\s,;]", line.strip(), maxsplit=1)[0] for line in lines]
        problems = {i: problem_of(smiles) for i, smiles in enumerate(first) if smiles}
        if first and problems.get(0):
            del problems[0]  # a header
        broken = [f"  line {i + 1}: {problem}" for i, problem in problems.items() if problem]
        if not problems:
            raise DataError(f"{self.path} holds no SMILES: give a file with one on each line")
        if len(broken) > max_broken * len(problems):
            words = "\n".join(broken[:20])
            raise DataError(
                f"{len(broken)} of the {len(problems)} lines of {self.path} are no well-formed SMILES, a larger share "
                f"than dataset.max_broken={max_broken:g}:\n{words}"
            )
        if broken:
            self.notes = (f"{len(broken)} of {len(problems)} lines were left out:\n" + "\n".join(broken[:20]),)
        return [first[i] for i, problem in problems.items() if problem is None]
