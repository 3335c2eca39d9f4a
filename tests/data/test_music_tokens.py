"""Tokenizers of music: exact round trips, and grammars that leave no token sequence that cannot be read."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genai_cli.data.music_tokens import CHORAL_RANGES, EventTokenizer, VoiceTokenizer
from genai_cli.data.tokenizers import tokenizer_from_json
from genai_cli.media.midi import Note, Score, midi_bytes

VOICES = VoiceTokenizer(steps_per_quarter=2)
EVENTS = EventTokenizer(longest=8, steps_per_quarter=4)
TOKENIZERS = [VOICES, EVENTS]


@st.composite
def chorales(draw) -> Score:
    """Voices of notes and rests one after the other, pitches struck again among them."""
    notes = []
    for voice, (low, high) in enumerate(CHORAL_RANGES):
        now = draw(st.integers(0, 3))
        for length, pitch, rest in draw(
            st.lists(st.tuples(st.integers(1, 9), st.integers(low, high), st.sampled_from([0, 0, 2])), max_size=8)
        ):
            notes.append(Note(now, length, pitch, voice))
            now += length + rest
    return Score(tuple(sorted(notes)), 2)


@given(chorales())
def test_voices_round_trip(score) -> None:
    tokens = VOICES.encode(score)
    assert tokens[0] == 0 and len(tokens) == 1 + 4 * score.length
    assert VOICES.decode(tokens) == score
    assert VOICES.decode(torch.cat([tokens, torch.tensor([0, 5, 9])])) == score  # what follows the end is left out


notes = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 50), st.integers(21, 108)), max_size=20)


@given(notes)
def test_events_round_trip(rows) -> None:
    score = Score(tuple(sorted(Note(*row) for row in rows)), 4)
    assert EVENTS.decode(EVENTS.encode(score)) == score


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(data=st.data())
def test_whatever_a_grammar_allows_is_read_to_the_last_token(tokenizer, data) -> None:
    """Any walk through the grammar: what is decoded encodes to the same tokens, up to rests at the end."""
    table = tokenizer.grammar(1).may_follow
    tokens = [0]
    for _ in range(data.draw(st.integers(1, 40))):
        allowed = table[tokens[-1]].nonzero().flatten().tolist()
        assert allowed
        tokens.append(data.draw(st.sampled_from(allowed)))
        if tokens[-1] == 0:
            break
    score = tokenizer.decode(torch.tensor(tokens))
    assert len(tokens) < 6 or tokenizer is EVENTS or score.length <= (len(tokens) - 1) // 4
    again = tokenizer.decode(tokenizer.encode(score))
    assert again == score


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_what_is_encoded_obeys_the_grammar(tokenizer) -> None:
    score = Score(tuple(Note(i, 1 + i % 3, 60 + i % 2, 0) for i in range(0, 40, 3)), 4)
    table = tokenizer.grammar(1).may_follow
    tokens = torch.cat([tokenizer.encode(score), torch.zeros(1, dtype=torch.int64)])
    assert table[tokens[:-1], tokens[1:]].all()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("semitones", [-3, 0, 2, 11, 40])
def test_transposed_tokens_are_those_of_the_transposed_score(tokenizer, semitones) -> None:
    score = Score((Note(0, 2, 60, 0), Note(1, 3, 72, 0), Note(6, 1, 72, 0)), tokenizer.steps_per_quarter)
    higher = Score(tuple(Note(n.start, n.length, n.pitch + semitones, 0) for n in score.notes), score.steps_per_quarter)
    moved = tokenizer.transposed(tokenizer.encode(score), semitones)
    try:
        expected = tokenizer.encode(higher)
    except ValueError:
        assert moved is None
    else:
        assert torch.equal(moved, expected)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_record_is_json_and_rebuilds_the_tokenizer(tokenizer) -> None:
    record = json.loads(json.dumps(tokenizer.to_json()))
    assert tokenizer_from_json(record).to_json() == tokenizer.to_json()
    with pytest.raises(ValueError, match="is not the record of a tokenizer"):
        tokenizer_from_json({**record, "colour": 3})


def test_a_prompt_is_a_midi_file(tmp_path) -> None:
    """Voices are found by their pitch, whatever the order of the tracks."""
    score = Score((Note(0, 4, 45, 3), Note(0, 4, 60, 1), Note(0, 4, 72, 0), Note(0, 4, 52, 2)), 2)
    turned = Score(tuple(Note(n.start, n.length, n.pitch, (n.voice + 1) % 4) for n in score.notes), 2)
    path = tmp_path / "song.mid"
    path.write_bytes(midi_bytes(turned))
    assert VOICES.decode(VOICES.prompt(str(path))) == Score(tuple(sorted(score.notes)), 2)
    path.write_bytes(midi_bytes(Score(score.notes[:2], 2)))
    with pytest.raises(ValueError, match=r"2 voices .*, not 4"):
        VOICES.prompt(str(path))
    with pytest.raises(ValueError, match="cannot be read"):
        VOICES.prompt(str(tmp_path / "none.mid"))
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="not a MIDI file"):
        EVENTS.prompt(str(path))


def test_what_cannot_be_written_is_named() -> None:
    with pytest.raises(ValueError, match="pitch 100 of voice 1 at step 3 is not in 57 to 84"):
        VOICES.encode(Score((Note(3, 1, 100, 0),), 2))
    with pytest.raises(ValueError, match="more than 4 voices"):
        VOICES.encode(Score((Note(0, 1, 60, 4),), 2))
    with pytest.raises(ValueError, match="pitch 7 at step 0 is not in 21 to 108"):
        EVENTS.encode(Score((Note(0, 1, 7),), 4))
