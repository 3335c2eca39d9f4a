"""Facts about the causal transformer, most of them in float64."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from genai_cli.nn.rotary import Rotary, rotate
from genai_cli.nn.transformer import FeedForward, SelfAttention, Transformer

CONTEXT, WIDTH, HEADS = 10, 16, 4
VARIANTS = list(itertools.product(("rotary", "learned"), (None, 2, 1)))  # positions, kv_heads
every_variant = pytest.mark.parametrize(("positions", "kv_heads"), VARIANTS)


def transformer(**options) -> Transformer:
    torch.manual_seed(0)
    return Transformer(context=CONTEXT, width=WIDTH, depth=2, heads=HEADS, **options).double().eval()


def inputs(length: int = CONTEXT) -> Tensor:
    return torch.randn(3, length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@every_variant
def test_future_inputs_get_no_gradient(positions: str, kv_heads: int | None) -> None:
    model, x = transformer(positions=positions, kv_heads=kv_heads), inputs().requires_grad_()
    for t in range(CONTEXT):
        (gradient,) = torch.autograd.grad(model(x)[:, t].square().sum(), x)
        reached = gradient.abs().amax((0, 2)) > 0  # (T,)
        assert reached.tolist() == [place <= t for place in range(CONTEXT)]


@every_variant
@pytest.mark.parametrize("first", [1, 4, CONTEXT])
@torch.no_grad()
def test_cache_equals_full_forward(positions: str, kv_heads: int | None, first: int) -> None:
    """`first` tokens at once, then one at a time; and again with the same buffers, cleared."""
    model, caches = transformer(positions=positions, kv_heads=kv_heads), None
    caches = model.new_caches()
    for x in (inputs(), inputs().flip(0)):
        parts = [model(x[:, :first], caches), *(model(x[:, t : t + 1], caches) for t in range(first, CONTEXT))]
        torch.testing.assert_close(torch.cat(parts, 1), model(x), atol=1e-10, rtol=0)
        for cache in caches:
            cache.clear()


@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
@torch.no_grad()
def test_a_step_of_one_token_is_the_forward_pass_of_every_kind(activation: str) -> None:
    model, x = transformer(activation=activation), inputs()
    caches = model.new_caches()
    parts = [model(x[:, t : t + 1], caches) for t in range(CONTEXT)]
    torch.testing.assert_close(torch.cat(parts, 1), model(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize("is_differentiated", [False, True])
def test_cache_equals_full_forward_in_single_precision(is_differentiated: bool) -> None:
    """By steps of their own, or by the modules, which record what they do."""
    model, x = transformer().float(), inputs().float()
    caches = model.new_caches()
    with torch.set_grad_enabled(is_differentiated):
        assert model.can_step(x) != is_differentiated
        parts = [model(x[:, t : t + 1], caches) for t in range(CONTEXT)]
        torch.testing.assert_close(torch.cat(parts, 1), model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_equals_its_definition(kv_heads: int) -> None:
    """softmax(q k / sqrt(D)) v over the past, head by head, place by place."""
    torch.manual_seed(0)
    attention = SelfAttention(WIDTH, HEADS, kv_heads=kv_heads).double()
    rotation, x, head_dim = Rotary(WIDTH // HEADS, CONTEXT).double()(0, CONTEXT), inputs(), WIDTH // HEADS
    projected = attention.qkv(x).unflatten(-1, (-1, head_dim))
    normalise = nn.LayerNorm(head_dim, elementwise_affine=False)
    queries = rotate(normalise(projected[:, :, :HEADS]), rotation)
    keys = rotate(normalise(projected[:, :, HEADS : HEADS + kv_heads]), rotation)
    values = projected[:, :, HEADS + kv_heads :]
    mixed = torch.zeros_like(queries)
    for head, t in itertools.product(range(HEADS), range(CONTEXT)):
        shared = head * kv_heads // HEADS
        scores = torch.einsum("bd,bsd->bs", queries[:, t, head], keys[:, : t + 1, shared]) / math.sqrt(head_dim)
        mixed[:, t, head] = torch.einsum("bs,bsd->bd", scores.softmax(-1), values[:, : t + 1, shared])
    torch.testing.assert_close(attention(x, rotation), attention.out(mixed.flatten(2)))


def test_without_positions_order_of_the_past_does_not_matter() -> None:
    """What tells the places apart is the rotation alone, so it is applied."""
    torch.manual_seed(0)
    attention, x = SelfAttention(WIDTH, HEADS).double(), inputs()
    shuffled = torch.cat((x[:, :-1].flip(1), x[:, -1:]), 1)
    rotation = Rotary(WIDTH // HEADS, CONTEXT).double()(0, CONTEXT)
    torch.testing.assert_close(attention(shuffled)[:, -1], attention(x)[:, -1])
    assert not torch.allclose(attention(shuffled, rotation)[:, -1], attention(x, rotation)[:, -1])


def test_swiglu_has_as_many_weights_as_the_others() -> None:
    counts = {
        activation: sum(weight.numel() for weight in FeedForward(96, activation=activation).parameters())
        for activation in ("gelu", "relu2", "swiglu")
    }
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize(("activation", "at_minus_2", "at_2"), [("gelu", -0.0454, 1.9546), ("relu2", 0.0, 4.0)])
def test_activation_is_what_it_is_called(activation: str, at_minus_2: float, at_2: float) -> None:
    layer = FeedForward(1, activation=activation)
    for weight in (layer.into.weight, layer.out.weight):
        nn.init.constant_(weight, 1 if weight is layer.into.weight else 0.25)  # the mean of 4 equal hidden units
    assert layer(torch.tensor([-2.0])).item() == pytest.approx(at_minus_2, abs=1e-3)
    assert layer(torch.tensor([2.0])).item() == pytest.approx(at_2, abs=1e-3)


def test_swiglu_is_a_gated_product() -> None:
    layer = FeedForward(3, activation="swiglu").double()
    x = torch.randn(5, 3, dtype=torch.float64)
    gate, value = layer.into(x).chunk(2, -1)
    torch.testing.assert_close(layer(x), layer.out(gate * gate.sigmoid() * value))


def test_dropout_acts_in_training_alone() -> None:
    model, x = transformer(dropout=0.5), inputs()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_residual_weights_start_smaller_with_depth() -> None:
    torch.manual_seed(0)
    model = Transformer(context=4, width=128, depth=8, heads=4)
    for block in model.blocks:
        assert block.attention.qkv.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
        assert block.attention.out.weight.std().item() == pytest.approx(128**-0.5 / 4, rel=0.05)
        assert block.feed_forward.out.weight.std().item() == pytest.approx(512**-0.5 / 4, rel=0.05)


def test_autocast_runs_with_and_without_a_cache() -> None:
    model, x = transformer().float(), inputs().float()
    caches = model.new_caches()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        whole = model(x)
        parts = [model(x[:, t : t + 1], caches) for t in range(CONTEXT)]
    torch.testing.assert_close(whole.float(), model(x), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cat(parts, 1).float(), whole.float(), atol=0.15, rtol=0)
