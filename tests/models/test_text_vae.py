"""What is special to the VAE of sentences: its bound is one, its KL term is the closed form, and the code is heard."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from genai_cli.data.base import Batch, Spec
from genai_cli.data.tokenizers import CharTokenizer
from genai_cli.models.text_vae import CodePredictor, TextVAE
from genai_cli.nn.random import BatchRandom, SampleRandom

CHARACTERS = "\nabc"


def tiny_vae(length: int = 3, **options) -> TextVAE:
    torch.manual_seed(0)
    spec = Spec("text", (length,), tokenizer=CharTokenizer(CHARACTERS).to_json(), vocabulary_size=len(CHARACTERS))
    return TextVAE(spec, **{**TextVAE.tiny, **options}).eval()


def batch_of(tokens: torch.Tensor, seed: int = 0) -> Batch:
    mask = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
    return Batch({"tokens": tokens, "mask": mask}, BatchRandom(seed, stop=len(tokens)))


def all_windows(length: int = 3) -> torch.Tensor:
    """Every text of that length after a line break."""
    texts = torch.tensor(list(itertools.product(range(len(CHARACTERS)), repeat=length)))
    return torch.cat([torch.zeros(len(texts), 1, dtype=torch.int64), texts], 1)


@torch.no_grad()
def test_the_kl_term_is_the_closed_form():
    model, tokens = tiny_vae(), all_windows()
    mu, logvar = model.posterior(tokens)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(model.bound(batch_of(tokens))[1], expected)


@torch.no_grad()
def test_the_bound_is_above_the_exact_likelihood():
    """p(x) of every text by many codes from the prior: these add up to 1, and -log of each is below its bound."""
    model, tokens = tiny_vae(latent_dim=1), all_windows()
    z = Normal(0.0, 1.0).icdf((torch.arange(400) + 0.5) / 400)[:, None]  # (400, 1), evenly likely
    log_p = torch.stack([log_likelihood(model, tokens, code) for code in z])  # (400, 64)
    exact = -(log_p.logsumexp(0) - math.log(len(z)))
    assert (-exact).exp().sum().item() == pytest.approx(1, abs=1e-4)
    bounds = torch.stack([sum_of(model.bound(batch_of(tokens, seed))) for seed in range(100)])  # (100, 64)
    above = (bounds - exact).mean(0) / bounds.std(0) * math.sqrt(len(bounds))  # in standard errors
    assert above.min() > -4 and above.mean() > 3


def log_likelihood(model: TextVAE, tokens: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    z = code.expand(len(tokens), -1)
    logits, _ = model.read(tokens[:, :-1], z, model.first_state(z))
    return logits.log_softmax(2).gather(2, tokens[:, 1:, None]).sum((1, 2))


def sum_of(terms: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return terms[0] + terms[1].sum(1)


def test_a_hidden_token_is_not_seen_and_the_first_never_is_hidden():
    """With all hidden, what comes before the window stays."""
    model = tiny_vae(length=8)
    tokens = torch.randint(1, 4, (4, 9), generator=torch.Generator().manual_seed(1))
    embedded = []
    model.embedding.register_forward_hook(lambda module, inputs, output: embedded.append(inputs[0]))
    model.bound(batch_of(tokens), word_dropout=1.0)
    seen = embedded[-1]
    assert torch.equal(seen[:, 0], tokens[:, 0]) and (seen[:, 1:] == model.hidden).all()
    model.bound(batch_of(tokens))
    assert torch.equal(embedded[-1], tokens[:, :-1])


def test_the_weight_of_the_kl_term_rises():
    model = tiny_vae(beta_warmup=4)

    class Step:
        number = 0

        def minimize(self, group, loss):
            self.weight = loss.keywords["beta"]

    weights = []
    for number in range(6):
        step = Step()
        step.number = number
        model.train_step(step)
        weights.append(step.weight)
    assert weights == [0.25, 0.5, 0.75, 1, 1, 1]


def test_trained_it_says_its_window_again_and_a_walk_begins_and_ends_at_its_texts():
    model = tiny_vae(width=32, latent_dim=4, beta_warmup=10_000, word_dropout=0.5)
    tokens = all_windows()[5::9]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(200):
        optimizer.zero_grad()
        model.loss(batch_of(tokens, step), beta=0.01)[0].backward()
        optimizer.step()
    assert torch.equal(model.decode(model.encode(tokens)), tokens[:, 1:])
    assert model.statistics(batch_of(tokens))["active_units"] > 0
    walk = model.pictures(batch_of(tokens))["interpolation"]
    assert torch.equal(walk[0], tokens[0, 1:]) and torch.equal(walk[-1], tokens[1, 1:])


def test_decoding_token_by_token_equals_reading_at_once():
    model = tiny_vae(length=6)
    latent = model.draw_latent(SampleRandom(0, range(3)))
    drawn = model.decode(latent)
    seen = torch.cat([torch.zeros(3, 1, dtype=torch.int64), drawn], 1)[:, :-1]
    logits, _ = model.read(seen, latent, model.first_state(latent))
    assert torch.equal(logits.argmax(2), drawn)


def test_rows_that_go_on_alone_go_on_as_before():
    """As where the others have ended: code and state are those of the rows that are left."""
    model = tiny_vae(length=6)
    latent = 3 * model.draw_latent(SampleRandom(0, range(3)))
    tokens = torch.randint(1, 4, (3, 5), generator=torch.Generator().manual_seed(1))
    expected, _ = model.read(tokens, latent, model.first_state(latent))
    predict = CodePredictor(model, latent)
    predict(tokens[:, :4])
    predict.select(torch.tensor([2, 0]))
    torch.testing.assert_close(predict(tokens[[2, 0]]), expected[[2, 0], -1])


def test_free_bits_are_the_least_that_each_coordinate_costs():
    """Of a posterior that says nothing the KL term is 0; each of three coordinates costs half a nat all the same."""
    model = tiny_vae(free_bits=0.5)
    torch.nn.init.zeros_(model.code.weight)
    torch.nn.init.zeros_(model.code.bias)
    loss, metrics = model.loss(batch_of(all_windows()[:4]))
    assert metrics["kl"] == 0 and model.latent_dim == 3
    torch.testing.assert_close(loss - metrics["reconstruction"], torch.tensor(1.5))
