"""`genai sample` of token models, as typed: prompts, streams, MIDI files, and what is refused."""

import json
from pathlib import Path

import pytest

from genai_cli.cli import run
from genai_cli.commands.sample import folder_name
from genai_cli.config import SampleConfig
from genai_cli.data.text import Text
from genai_cli.errors import ExitCode
from genai_cli.media.midi import read_midi
from tests.molecules import write_molecules

SMALL = [
    "model.width=16", "model.depth=1", "model.heads=2", "train.steps=1", "train.batch_size=2", "train.num_samples=1",
    "train.evaluate_every=null", "train.save_every=1", "device=cpu", "logger=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, str]:
    """A run of one step for each of the modalities."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "words.txt").write_text("To be, or not to be — 床前明月光 👍\n" * 40, encoding="utf-8")
    datasets = {
        "text": ["dataset=text", f"dataset.path={folder}/words.txt", "dataset.length=8", "dataset.tokenizer=byte"],
        "music": ["dataset=chorales", "dataset.size=3", "dataset.held_out=1", "dataset.length=32"],
        "molecules": ["dataset=smiles", f"dataset.path={write_molecules(folder / 'molecules.smi')}"],
    }
    for name, words in datasets.items():
        assert run(["train", "model=gpt", *words, *SMALL, f"run.dir={folder}/{name}"]) == ExitCode.DONE
    return {name: str(folder / name) for name in datasets}


def sample(*words: str) -> int:
    return run(["sample", "device=cpu", *words])


def test_what_is_streamed_is_the_first_sample(runs, tmp_path, capsys) -> None:
    options = [f"run={runs['text']}", "num_samples=1", "prompt=To be", "length=30", "seed=3"]
    assert sample(*options, f"out={tmp_path}") == ExitCode.DONE
    capsys.readouterr()
    assert sample(*options, "stream=true") == ExitCode.DONE
    printed = capsys.readouterr().out
    written = (tmp_path / "00000.txt").read_text(encoding="utf-8")
    assert printed.startswith("To be") and printed.rstrip("\n\ufffd") == written.rstrip("\n\ufffd")


@pytest.mark.parametrize("prompt", ["To be, or [not] {to} be", "a = b: (c", "12", "'To be,'", "it's"])
def test_a_prompt_is_the_text_that_was_typed(runs, tmp_path, prompt) -> None:
    assert sample(f"run={runs['text']}", "num_samples=1", f"prompt={prompt}", "length=2", f"out={tmp_path}") == 0
    assert (tmp_path / "00000.txt").read_text(errors="replace").startswith(prompt.strip("'"))


def test_each_request_has_a_folder_of_its_own(runs) -> None:
    """So do prompts, which are no names of files, weights, and what differs only far behind."""
    far = {"given": "a/" + "b" * 200}
    configs = [
        SampleConfig(runs["text"]), SampleConfig(runs["text"], weights="raw"),
        *(SampleConfig(runs["text"], options={"prompt": prompt}) for prompt in ("To be", "or not", "/")),
        *(SampleConfig(runs["text"], options={**far, "keep": keep}) for keep in ("top_half", "left_half")),
    ]  # fmt: skip
    names = [folder_name(config, 5) for config in configs]
    assert len(set(names)) == len(names) and names == [folder_name(config, 5) for config in configs]
    assert all(len(name) < 130 and "/" not in name for name in names)
    assert names[0] == "step-00000005-seed-0"


def test_of_a_run_that_is_not_there_nothing_else_is_said(capsys) -> None:
    assert sample("run=nowhere", "prompt=To be", "length=30") == ExitCode.CONFIGURATION
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_at_temperature_0_the_likeliest_token_is_drawn(runs, tmp_path) -> None:
    texts = []
    for words in (["temperature=0"], ["top_k=1"]):
        out = tmp_path / words[0]
        assert sample(f"run={runs['text']}", "num_samples=1", "length=9", *words, f"out={out}") == 0
        texts.append((out / "00000.txt").read_bytes())
    assert texts[0] == texts[1]


def test_prompts_take_turns(runs, tmp_path) -> None:
    assert sample(f"run={runs['text']}", "num_samples=5", "prompts=[To, not to be]", "length=4", f"out={tmp_path}") == 0
    texts = [path.read_bytes() for path in sorted(tmp_path.glob("0*.txt"))]
    assert [text.startswith(b"To") for text in texts] == [True, False, True, False, True]
    assert all(text.startswith(b"not to be") for text in texts[1::2])


def test_music_goes_on_from_a_midi_file(runs, tmp_path) -> None:
    assert sample(f"run={runs['music']}", "num_samples=1", "length=64", f"out={tmp_path}/first") == 0
    song = tmp_path / "first" / "00000.mid"
    code = sample(f"run={runs['music']}", "num_samples=2", "length=32", f"prompt={song}", f"out={tmp_path}/second")
    voices = {note.voice for note in read_midi(song.read_bytes()).notes}
    if len(voices) < 4:  # an untrained piece may leave a voice silent; then it is refused in words
        assert code == ExitCode.CONFIGURATION
        return
    assert code == 0
    beginning = read_midi(song.read_bytes()).notes[:4]
    for name in ("00000.mid", "00001.mid"):
        assert len(read_midi((tmp_path / "second" / name).read_bytes()).notes) >= len(beginning)
    assert (tmp_path / "second" / "00000.wav").is_file() and (tmp_path / "second" / "sheet.png").is_file()


def test_molecules_are_a_file_of_smiles(runs, tmp_path) -> None:
    options = [f"run={runs['molecules']}", "num_samples=4", "grammar=true", "prompt=CC", f"out={tmp_path}"]
    assert sample(*options) == 0
    lines = (tmp_path / "samples.smi").read_text().splitlines()
    assert len(lines) == 4 and all(line.startswith("CC") for line in lines)
    assert json.loads((tmp_path / "sample.json").read_text())["figures"]["well_formed"] == 1


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("text", ["stream=true"], "num_samples=1"),
        ("music", ["stream=true", "num_samples=1"], "text model"),
        ("text", ["beam=2", "temperature=0.5"], "takes no temperature"),
        ("text", ["grammar=true"], "leave grammar out"),
        ("music", ["prompt=nowhere.mid"], "nowhere.mid cannot be read"),
        ("molecules", ["prompt=CX"], "at position 1 is not among"),
        ("molecules", ["stop=C"], "give some text"),
        ("text", ["prompt=a", "prompts=[b,春眠]"], "give one text, or a list"),
    ],
)
def test_what_cannot_be_is_refused_in_words(runs, kind, words, message, capsys, tmp_path) -> None:
    assert sample(f"run={runs[kind]}", f"out={tmp_path}", *words) == ExitCode.CONFIGURATION
    assert message in capsys.readouterr().err
    assert not list(Path(tmp_path).iterdir())


def test_evaluation_holds_the_rules_beside_those_of_data_and_of_noise(runs, tmp_path) -> None:
    words = ["dataset=formal", "dataset.size=300", "dataset.length=16"]
    assert run(["train", "model=gpt", *words, *SMALL, f"run.dir={tmp_path}/formal"]) == ExitCode.DONE
    expected = {
        str(tmp_path / "formal"): {"right"},
        runs["music"]: {"in_range", "crossing", "parallels", "triads"},
        runs["molecules"]: {"valid", "well_formed"},
    }
    for folder, names in expected.items():
        assert run(["evaluate", f"run={folder}", "num_samples=8", "metrics=[rules]", "device=cpu"]) == ExitCode.DONE
        (record,) = (json.loads(path.read_text()) for path in Path(folder).glob("evaluation/*.json"))
        metrics = {metric["name"]: metric for metric in record["metrics"]}
        assert names <= set(metrics)
        for name in names & {"right", "valid", "in_range"}:
            controls = metrics[name]["controls"]
            assert controls["real"] > 0.99 and controls["real"] >= controls["noise"]
            assert metrics[name]["protocol"]["n_fake"] == 8


def bits_of(folder: str) -> dict[str, float]:
    """The metrics of the newest evaluation, by name."""
    newest = max(Path(folder).glob("evaluation/*.json"), key=lambda path: path.stat().st_mtime_ns)
    return {metric["name"]: metric["value"] for metric in json.loads(newest.read_text())["metrics"]}


def test_the_figures_of_a_text_file_are_those_of_the_split_with_that_text(runs, tmp_path, capsys) -> None:
    """And what is no text of the run is refused in words."""
    split = Text(path=f"{Path(runs['text']).parent}/words.txt", length=8, tokenizer="byte").load("test")
    whole = bytes(split.tokens.tolist())
    (tmp_path / "held_out.txt").write_bytes(whole)
    run(["evaluate", f"run={runs['text']}", "device=cpu", "metrics=[text]"])
    expected = bits_of(runs["text"])
    assert run(["evaluate", f"run={runs['text']}", "device=cpu", f"text={tmp_path}/held_out.txt"]) == ExitCode.DONE
    found = bits_of(runs["text"])
    assert expected and all(found[name] == pytest.approx(value) for name, value in expected.items())
    code = run(["evaluate", f"run={runs['music']}", "device=cpu", f"text={tmp_path}/held_out.txt"])
    assert code == ExitCode.CONFIGURATION and "learned music, not text" in capsys.readouterr().err
    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    assert run(["evaluate", f"run={runs['text']}", "device=cpu", f"text={tmp_path}/bad.txt"]) == ExitCode.DATA
