"""GPT-2 of Hugging Face transformers: trained by its `Trainer`, sampled by its `generate`."""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.turns import Turns

SIZE = {"n_layer": 4, "n_head": 4, "n_embd": 128, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def unavailable() -> str | None:
    missing = [name for name in ("transformers", "accelerate") if find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: pip install transformers accelerate" if missing else None


class Windows(Dataset):
    def __init__(self, text: Tensor, context: int):
        self.text, self.context = text, context

    def __len__(self) -> int:
        return len(self.text) - self.context

    def __getitem__(self, start: int) -> dict[str, Tensor]:
        window = self.text[start : start + self.context]
        return {"input_ids": window, "labels": window}  # the model itself takes the next one of each


def train(turns: Turns, *, text: Tensor, vocabulary: int, context: int, batch_size: int) -> None:
    """Until the turns end."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    class Announce(TrainerCallback):
        def on_step_end(self, args, state, control, **others) -> None:
            turns.step_done() if state.global_step > 1 else turns.ready(parameters=model.num_parameters())

    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=context, **SIZE))
    arguments = TrainingArguments(
        output_dir="trained", per_device_train_batch_size=batch_size, max_steps=10**9, learning_rate=1e-3,
        logging_steps=100, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=Windows(text, context), callbacks=[Announce()]).train()


@torch.no_grad()
def generate(turns: Turns, *, vocabulary: int, context: int, length: int) -> None:
    """A step is `length` tokens after one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=context, **SIZE)).eval()
    turns.ready(parameters=model.num_parameters())
    prompt = torch.zeros(1, 1, dtype=torch.int64)
    while True:
        model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=0, max_new_tokens=length,
            min_new_tokens=length, pad_token_id=0,
        )  # fmt: skip
        turns.step_done()
