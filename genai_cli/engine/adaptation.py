"""A run that starts from another one: what of the model trains, and what stays as it was.

What stays is held once in the run directory, under `base/`; a checkpoint holds the rest: the adapters alone, say.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.nn import Parameter

from genai_cli.engine.sharding import part_of
from genai_cli.errors import ConfigError
from genai_cli.models.base import GenerativeModel


class Adaptation:
    """Of a model, the tensors of its state dict that training never changes (`kept`); in most runs there are none."""

    def __init__(self, model: GenerativeModel, kept: Iterable[str] = ()):
        self.model = model
        self.kept = set(kept)
        named = dict(model.named_parameters(remove_duplicate=False))
        still = {id(parameter) for name, parameter in named.items() if name in self.kept}
        self.kept |= {name for name, parameter in named.items() if id(parameter) in still}  # tied under another name
        for name in self.kept & named.keys():
            named[name].requires_grad_(False)
        buffers = {id(buffer) for name, buffer in model.named_buffers() if name in self.kept}
        self._resting = [
            module for module in model.modules() if any(id(buffer) in buffers for buffer in module.buffers(False))
        ]

    def train(self) -> None:
        """Training mode, but for layers whose running statistics stay: these use them."""
        self.model.train()
        for module in self._resting:
            module.eval()

    def averaged(self) -> list[Parameter]:
        """What a moving average follows."""
        return [parameter for parameter in self.model.ema_parameters() if parameter.requires_grad]

    def learned(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {name: tensor for name, tensor in self.model.state_dict().items() if name not in self.kept}

    def take_up(self, learned: Mapping[str, Tensor]) -> None:
        """Load what `learned` returned. Raises RuntimeError where it is of another model."""
        own = self.model.state_dict()
        kept = {name: tensor for name, tensor in own.items() if name in self.kept}
        parts = {name: part_of(tensor, own.get(name, tensor)) for name, tensor in learned.items()}
        self.model.load_state_dict({**parts, **kept})

    def check_groups(self, words: str) -> None:
        """Raise ConfigError, beginning with `words`, where a player has nothing to train."""
        for group, members in self.model.parameter_groups().items():
            if not any(parameter.requires_grad for parameter in members):
                raise ConfigError(f"{words} leaves nothing of {group} to train; name less of it")
