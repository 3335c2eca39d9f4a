"""What is special to the recurrent network: its state says all, it is causal by gradient, and it counts."""

import pytest
import torch
from torch import Tensor

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.models.char_rnn import CharRNN
from genai_cli.nn.random import BatchRandom, SampleRandom
from genai_cli.samplers.decoding import draw_tokens

TOKENIZER = CharTokenizer("\nabcdefg")
CELLS = pytest.mark.parametrize("cell", ["lstm", "gru"])


def tiny_rnn(context: int = 8, **options) -> CharRNN:
    torch.manual_seed(0)
    spec = Spec("text", (context,), tokenizer=TOKENIZER.to_json(), vocabulary_size=TOKENIZER.vocabulary_size)
    return CharRNN(spec, **{**CharRNN.tiny, **options}).eval()


def sharper(model: CharRNN) -> CharRNN:
    with torch.no_grad():
        model.head.weight.mul_(30)
    return model


@CELLS
def test_sampling_token_by_token_equals_the_whole_sequence(cell: str) -> None:
    """Prompt and all: the state holds what the network has read, also beyond the window of training."""
    model = sharper(tiny_rnn(cell=cell)).double()
    prompt, length = torch.tensor([3, 1, 4]), 30
    samples = model.sample(SampleRandom(2, range(3)), prompt=prompt, length=length, temperature=0.8)
    tokens, random = prompt.repeat(3, 1), SampleRandom(2, range(3))
    for _ in range(length):
        tokens = torch.cat((tokens, draw_tokens(model(tokens)[:, -1], random, temperature=0.8)[:, None]), 1)
    assert torch.equal(samples, tokens)


@CELLS
def test_a_beam_follows_the_states_of_its_sequences(cell: str) -> None:
    """A beam wider than all sequences of three tokens finds the likeliest."""
    model = sharper(tiny_rnn(cell=cell)).double()
    prompt = torch.tensor([2])
    (found,) = model.sample(SampleRandom(0, [0]), prompt=prompt, length=3, beam=8**2)
    every = torch.cartesian_prod(prompt, *[torch.arange(8)] * 3)  # (512, 4)
    steps = model(every[:, :-1]).log_softmax(-1).gather(2, every[:, 1:, None]).squeeze(2)
    assert torch.equal(found, every[steps.sum(1).argmax()])


@CELLS
def test_it_is_causal_by_gradient(cell: str) -> None:
    model = tiny_rnn(cell=cell)
    embedded: Tensor = model.embedding(torch.randint(8, (1, 6))).detach().requires_grad_()
    logits = model.head(model.rnn(embedded)[0])
    for t in range(6):
        (gradient,) = torch.autograd.grad(logits[0, t].sum(), embedded, retain_graph=True)
        reach = gradient[0].abs().sum(1) > 0
        assert reach[: t + 1].all() and not reach[t + 1 :].any()


def test_an_untrained_forget_gate_is_open() -> None:
    model = tiny_rnn(cell="lstm", width=4, depth=1)
    assert (model.rnn.bias_ih_l0[4:8] == 1).all() and (model.rnn.bias_ih_l0[8:] != 1).all()


@CELLS
def test_memorises_a_periodic_text(cell: str) -> None:
    period = torch.tensor([1, 2, 3, 1, 2, 4])
    windows = torch.stack([period.roll(-start).repeat(3)[:13] for start in range(6)])  # (6, T + 1)
    batch = Batch({"tokens": windows, "mask": torch.ones(6, 12, dtype=torch.bool)}, BatchRandom(0, stop=6))
    model = tiny_rnn(12, cell=cell, width=32, depth=1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss, _ = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (sample,) = model.eval().sample(SampleRandom(0, [0]), prompt=period, length=30, top_k=1)
    assert torch.equal(sample, period.repeat(6))
