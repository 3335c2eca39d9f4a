"""Tokenizers: exact round trips in every script, and refusals that say what and where."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genai_cli.data.tokenizers import ByteTokenizer, CharTokenizer, tokenizer_from_json

MIXED = "To be — 床前明月光,疑是地上霜。 naïve 👩‍👩‍👧 \r\n\t\0"


@pytest.mark.parametrize("tokenizer", [CharTokenizer.of_text(MIXED), ByteTokenizer()])
def test_round_trip_of_many_scripts(tokenizer):
    assert tokenizer.decode(tokenizer.encode(MIXED)) == MIXED


@given(st.text(min_size=1), st.data())
def test_characters_round_trip(text, data):
    tokenizer = CharTokenizer.of_text(text)
    part = data.draw(st.text(alphabet=sorted(set(text))))
    tokens = tokenizer.encode(part)
    assert tokens.dtype == torch.int64 and tokens.shape == (len(part),)
    assert tokenizer.decode(tokens) == part
    assert tokenizer.vocabulary_size == len(set(text))


@given(st.text())
def test_bytes_round_trip(text):
    tokens = ByteTokenizer().encode(text)
    assert bytes(tokens.tolist()) == text.encode()
    assert ByteTokenizer().decode(tokens) == text


@given(st.binary())
def test_bytes_that_are_no_text_still_decode(content):
    ByteTokenizer().decode(torch.tensor(list(content), dtype=torch.uint8))


def test_unknown_character_is_named_with_its_position():
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9, LATIN SMALL LETTER E WITH ACUTE\) at position 2"):
        CharTokenizer("abc").encode("abé")
    with pytest.raises(ValueError, match=r"U\+D800.* at position 1"):
        ByteTokenizer().encode("a\ud800")


@pytest.mark.parametrize("tokenizer", [CharTokenizer("abc"), ByteTokenizer()])
@pytest.mark.parametrize("token", [-1, 256])
def test_token_outside_the_vocabulary_is_refused(tokenizer, token):
    with pytest.raises(ValueError, match="a token is not in 0 to"):
        tokenizer.decode(torch.tensor([0, token]))


@pytest.mark.parametrize("tokenizer", [CharTokenizer.of_text(MIXED), ByteTokenizer()])
def test_json_round_trip(tokenizer):
    copy = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert type(copy) is type(tokenizer)
    assert copy.encode(MIXED).equal(tokenizer.encode(MIXED))


@pytest.mark.parametrize(
    "record",
    [{}, {"name": "bpe"}, {"name": "char"}, {"name": "char", "characters": "ba"}, {"name": "char", "characters": 7}],
)
def test_record_that_is_no_tokenizer_is_refused(record):
    with pytest.raises(ValueError):
        tokenizer_from_json(record)
