"""Options that several models repeat, so that each file says all it takes, are the same there and reach the code."""

import ast
from typing import Any

import pytest
import torch

from genai_cli import registry
from genai_cli.checks import Check
from genai_cli.data.base import Batch, Spec
from genai_cli.models import consistency, ddpm, edm, flow_matching, meanflow
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.registry import MODEL
from tests.models.test_contract import SPECS

VAES = ["beta_vae", "cvae", "hvae", "vae", "vamp"]  # whose KL term has a price
WRITERS = ["char_rnn", "gpt", "t5", "text_vae", "wavenet"]  # of tokens, one after the other
DECODING: dict[str, Any] = {  # every option that their samples have, and a value that is not its default
    "temperature": 0.7, "top_k": 3, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.2, "length": 4,
    "prompt": torch.tensor([1, 2]), "prompts": [torch.tensor([1])], "stop": "a", "beam": 2, "grammar": False,
}  # fmt: skip
DENOISERS = {"consistency": consistency, "ddpm": ddpm, "edm": edm, "flow_matching": flow_matching, "meanflow": meanflow}
BACKBONE: dict[str, Any] = {  # likewise of what is said of their network
    "backbone": "dit", "width": 24, "levels": 3, "depth": 2, "heads": 3, "patch": 4, "dropout": 0.2,
    "condition": "label", "label_dropout": 0.3,
}  # fmt: skip


def declared(options: dict[str, registry.Option]) -> dict[str, tuple[str, Any]]:
    return {name: (ast.unparse(option.annotation), option.default) for name, option in options.items()}


def vae_and_batches(name: str) -> tuple[GenerativeModel, list[Batch]]:
    """A tiny instance whose code says something of every example, and one batch with the same random numbers twice."""
    spec = Spec("image", (1, 8, 8), (-1.0, 1.0), classes=("even", "odd"))
    definition = registry.define(MODEL, name)
    torch.manual_seed(0)
    model = registry.load_model_class(name)(spec, **definition.tiny)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    rows = {"image": torch.randn(6, 1, 8, 8).sign(), "label": torch.arange(6) % 2}
    if name == "vamp":
        model.loss(Batch(rows, BatchRandom(1, stop=6)))  # so that pseudo-inputs have begun
    return model, [Batch(rows, BatchRandom(0, stop=6)) for _ in range(2)]


@pytest.mark.parametrize("name", VAES)
def test_free_bits_leave_training_without_a_kl_term_below_and_change_nothing_above(name: str):
    for settings, others in (((1.0, 1e4), (1e-9, 0.0)), ((1.0, 1e-9), (1.0, 0.0))):  # beta and free_bits
        model, batches = vae_and_batches(name)
        found = []
        for batch, (model.beta, model.free_bits) in zip(batches, (settings, others), strict=True):
            loss, metrics = model.loss(batch)
            gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
            found.append(({key: value.item() for key, value in metrics.items()}, gradients))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", VAES)
def test_beta_and_free_bits_are_of_training_alone(name: str):
    model, batches = vae_and_batches(name)
    with torch.no_grad():
        plain = model.evaluate(batches[0])
        model.beta, model.free_bits = 7.0, 3.0
        torch.testing.assert_close(model.evaluate(batches[1]), plain, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(VAES) - {"hvae"}))
def test_beta_rises_from_zero_in_the_warm_up(name: str):
    """That of `hvae` lets the coarser maps wait (see there)."""
    model, _ = vae_and_batches(name)
    model.beta, model.beta_warmup, used = 4.0, 10, []

    class Recorder:
        number = 0

        def minimize(self, group: str, loss: Any) -> None:
            used.append(loss.keywords["beta"])

    for Recorder.number in (0, 4, 9, 500):
        model.train_step(Recorder())
    assert used == pytest.approx([0.4, 2.0, 4.0, 4.0])


@pytest.mark.parametrize("name", sorted(set(VAES) - {"beta_vae"}))
@pytest.mark.parametrize("option", ["beta_warmup", "free_bits"])
def test_what_beta_of_zero_would_leave_without_effect_is_refused(name: str, option: str):
    off = {"name": name, "beta": 0.0, "beta_warmup": 0, "free_bits": 0.0}
    for value, is_refused in ((0, False), (3, True)):
        check = Check()
        check.named(MODEL, {**off, option: value}, (), None)
        assert [line for line in check.problems if option in line] == check.problems
        assert bool(check.problems) == is_refused


def test_free_bits_of_a_total_correlation_are_refused():
    check = Check()
    check.named(MODEL, {"name": "beta_vae", "penalty": "tc", "free_bits": 0.5}, (), None)
    assert len(check.problems) == 1 and "free_bits belongs to penalty=kl" in check.problems[0]


@pytest.mark.parametrize("name", WRITERS)
def test_options_of_written_samples_are_those_of_gpt_and_all_are_handed_on(name: str):
    definition = registry.define(MODEL, name)
    options, of_gpt = declared(definition.sample_options), declared(registry.define(MODEL, "gpt").sample_options)
    assert of_gpt.keys() == DECODING.keys()
    own = {"label": options.pop("label")} if name == "wavenet" else {}  # which also draws signals, of a class,
    signals = {"given", "keep"} & options.keys()  # and goes on with them
    assert not signals or name == "wavenet"
    options = {key: option for key, option in options.items() if key not in signals}
    assert options == {key: of_gpt[key] for key in of_gpt if (name, key) != ("text_vae", "beam")}
    model = registry.load_model_class(name)(SPECS["text"], **definition.tiny)
    handed_on: dict[str, Any] = {}
    model.stream = model._tokens = lambda random, **given: handed_on.update(given) or [torch.zeros(2)]
    model.sample(SampleRandom(0, range(2)), **{key: DECODING[key] for key in options})
    assert handed_on.keys() == options.keys() | own.keys() and all(handed_on[key] is DECODING[key] for key in options)


@pytest.mark.parametrize("name", DENOISERS)
def test_what_is_given_to_a_denoiser_is_given_as_to_ddpm(name: str):
    options, of_ddpm = (declared(registry.define(MODEL, each).sample_options) for each in (name, "ddpm"))
    assert all(options[key] == of_ddpm[key] for key in ("given", "keep", "strength"))


@pytest.mark.parametrize("name", DENOISERS)
def test_options_of_a_denoiser_are_those_of_ddpm_and_reach_the_network(name: str, monkeypatch: pytest.MonkeyPatch):
    """Where a function must be one and the same twice there is no dropout."""
    definition = registry.define(MODEL, name)
    options, of_ddpm = declared(definition.options), declared(registry.define(MODEL, "ddpm").options)
    shared = {key for key in BACKBONE if key in options}
    assert set(BACKBONE) - shared == ({"dropout", "label_dropout"} if name in ("consistency", "meanflow") else set())
    assert {key: options[key] for key in shared} == {key: of_ddpm[key] for key in shared}
    said: dict[str, Any] = {}

    def build(spec: Spec, **given: Any) -> torch.nn.Module:
        said.update(given)
        return torch.nn.Identity()

    monkeypatch.setattr(DENOISERS[name], "Denoiser", build)
    registry.load_model_class(name)(SPECS["grey 28"], **{key: BACKBONE[key] for key in shared})
    assert {key: said[key] for key in BACKBONE} == {key: BACKBONE[key] if key in shared else 0.0 for key in BACKBONE}
