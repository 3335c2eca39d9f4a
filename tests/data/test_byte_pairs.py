"""Byte pairs: exact round trips in every script, merges that can be followed by hand, the tokens of another library."""

import json

import pytest
import tokenizers
import tokenizers.models
import tokenizers.pre_tokenizers
import tokenizers.trainers
import torch
from hypothesis import given
from hypothesis import strategies as st

from genai_cli.data.byte_pairs import BYTES, PIECE, BytePairTokenizer, learn_merges
from genai_cli.data.text import SAMPLE
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.data.windows import read_text

MIXED = "To be — 床前明月光,疑是地上霜。 naïve e\u0301 👩‍👩‍👧 \r\n\t\0 to be or not to be"
GENESIS = read_text(SAMPLE).decode()
TOKENIZER = BytePairTokenizer.of_text(MIXED * 3 + GENESIS[:20_000], 400)


@given(st.text())
def test_round_trip_of_any_text(text) -> None:
    tokens = TOKENIZER.encode(text)
    assert TOKENIZER.decode(tokens) == text
    assert len(tokens) <= len(text.encode())


def test_round_trip_of_many_scripts() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(MIXED)) == MIXED
    assert TOKENIZER.vocabulary_size == 400


@given(st.text())
def test_pieces_are_all_of_the_text(text) -> None:
    assert "".join(PIECE.findall(text)) == text


def test_merges_are_the_most_frequent_pairs() -> None:
    """abab cd cd: (a b) comes twice and in order before all; then (ab ab), ( c) and ( cd)."""
    a, b, c, d, space = (BYTES.index(ord(letter)) for letter in "abcd ")
    merges = learn_merges("abab cd cd", 10)
    assert merges == [(a, b), (c, d), (space, 257), (256, 256)]
    assert [BYTES[token] for token in (a, b, c, d, space)] == list(b"abcd ")


def test_an_overlapping_pair_is_joined_from_the_left() -> None:
    x = BYTES.index(ord("x"))
    assert BytePairTokenizer([(x, x)]).encode("xxxxx").tolist() == [256, 256, x]


def test_learning_is_a_function_of_the_text() -> None:
    assert learn_merges(GENESIS[:5000], 50) == learn_merges(GENESIS[:5000], 60)[:50]


def test_the_tokens_are_those_of_the_tokenizers_library() -> None:
    text = GENESIS[:60_000] + "床前明月光,疑是地上霜。举头望明月,低头思故乡。\n" * 5
    own = BytePairTokenizer.of_text(text, 600)
    other = tokenizers.Tokenizer(tokenizers.models.BPE())
    parts = tokenizers.pre_tokenizers
    other.pre_tokenizer = parts.Sequence(
        [
            parts.Split(tokenizers.Regex(PIECE.pattern), "isolated"),
            parts.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=parts.ByteLevel.alphabet(), show_progress=False
    )
    other.train_from_iterator([text], trainer)
    assert own.encode(text).tolist() == other.encode(text).ids


def test_half_a_character_is_refused_with_its_position() -> None:
    with pytest.raises(ValueError, match=r"U\+D800.* at position 5"):
        TOKENIZER.encode("To be\ud800")


def test_the_record_is_json_and_rebuilds_the_tokenizer() -> None:
    record = json.loads(json.dumps(TOKENIZER.to_json()))
    again = tokenizer_from_json(record)
    assert torch.equal(again.encode(MIXED), TOKENIZER.encode(MIXED)) and again.start == TOKENIZER.start
    assert TOKENIZER.decode(torch.tensor([again.start])) == "\n"
    with pytest.raises(ValueError, match="pair 0 joins 256 and 3"):
        BytePairTokenizer([(256, 3)])


def test_sampled_bytes_that_are_no_text_still_decode() -> None:
    assert "\ufffd" in TOKENIZER.decode(torch.arange(256))
