"""The GPT of litgpt: trained by a plain loop around its compiled module, sampled by its `generate`."""

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ours import count_parameters
from benchmarks.turns import Turns


def unavailable() -> str | None:
    return None if find_spec("litgpt") else "litgpt not installed: pip install litgpt"


def model_of(vocabulary: int, context: int) -> nn.Module:
    """4 layers, 4 heads and 128 features, without biases; rotary positions, as ours."""
    from litgpt.model import GPT, Config

    size: dict[str, Any] = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": context}
    return GPT(
        Config(
            **size, vocab_size=vocabulary, padded_vocab_size=vocabulary, rotary_percentage=1.0, bias=False,
            parallel_residual=False,
        )
    )  # fmt: skip


def train(turns: Turns, *, text: Tensor, vocabulary: int, context: int, batch_size: int) -> None:
    """Until the turns end: random windows of `text` (N,), AdamW, gradients clipped. Compiled before the first turn."""
    model = model_of(vocabulary, context)
    forward = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    turns.ready(parameters=count_parameters(model))
    while True:
        starts = torch.randint(len(text) - context, (batch_size, 1))
        rows = text[starts + torch.arange(context + 1)]
        loss = F.cross_entropy(forward(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        turns.step_done()


@torch.inference_mode()
def generate(turns: Turns, *, vocabulary: int, context: int, length: int) -> None:
    """A step is `length` tokens after one, with its key-value cache."""
    from litgpt.generate.base import generate

    model = model_of(vocabulary, context).eval()
    turns.ready(parameters=count_parameters(model))
    model.set_kv_cache(batch_size=1)
    prompt = torch.zeros(1, dtype=torch.int64)
    while True:
        generate(model, prompt, 1 + length)
        for block in model.transformer.h:
            block.attn.kv_cache.reset_parameters()
        turns.step_done()
