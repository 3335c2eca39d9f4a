"""Facts about pairs: what is read is what was written, what counts is the response, and no prompt is in two splits."""

import json

import pytest
import torch

from genai_cli.data.base import DataError
from genai_cli.data.pairs import Pairs
from genai_cli.data.tokenizers import CharTokenizer, PairTokenizer, tokenizer_from_json

SPLITS = ("train", "validation", "test")


def test_a_pair_is_a_prompt_a_separator_a_response_and_an_end():
    tokenizer = tokenizer_from_json(PairTokenizer(CharTokenizer("abc")).to_json())
    row = torch.cat([tokenizer.prompt("ab"), tokenizer.response("c")])
    assert row.tolist() == [4, 0, 1, 3, 2, 4] and tokenizer.vocabulary_size == 5
    assert tokenizer.decode(row) == "ab\nc" and tokenizer.decode(torch.tensor([4, 0, 3])) == "a\n"
    assert tokenizer.decode(tokenizer.encode("cab")) == "cab"


@pytest.mark.parametrize(("task", "is_right"), [
    ("reverse", lambda prompt, response: prompt == response[::-1]),
    ("addition", lambda prompt, response: sum(map(int, prompt.split("+"))) == int(response)),
])  # fmt: skip
def test_drawn_pairs_are_right_and_their_splits_share_no_prompt(task, is_right):
    pairs = Pairs(task=task, size=300, digits=2).pairs
    assert all(is_right(*pair) for name in SPLITS for pair in pairs[name])
    prompts = [{prompt for prompt, _ in pairs[name]} for name in SPLITS]
    assert all(prompts) and not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])


def test_what_counts_is_the_response_and_its_end():
    dataset = Pairs(size=50, longest=6)
    rows = dataset.load("train").fetch(torch.arange(5))
    for tokens, mask, (_, response) in zip(rows["tokens"], rows["mask"], dataset.pairs["train"], strict=False):
        assert torch.equal(tokens[1:][mask], dataset.tokenizer.response(response))


def test_a_file_is_read_and_what_is_wrong_with_it_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"what is {n}?", "response": "n" * n} for n in range(1, 60)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = Pairs(path=str(path), validation=0.2, test=0.2)
    assert sum(len(dataset.load(split)) for split in SPLITS) == 59
    with pytest.raises(DataError, match=r"give dataset\.length=72 or leave it out"):
        Pairs(path=str(path), length=20)
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r'line 1 of .* needs texts under "prompt" and "response"'):
        Pairs(path=str(path))
