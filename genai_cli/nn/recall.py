"""What came next when the latest frames were heard before: a cache of the sequence itself (Kuhn & De Mori 1990).

Pieces of music repeat phrases. A place whose latest frames are, frame for frame, those of an earlier place is likely to
go on as that one did; how likely, for each length of the match, is all that is learned. As in Grave et al. 2017
(arXiv:1612.04426) the earlier places and the model share one softmax.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Recall(nn.Module):
    """Probabilities of notes, mixed with those of the frames that followed the same `longest` or fewer frames."""

    def __init__(self, longest: int):
        super().__init__()
        self.scores = nn.Parameter(torch.linspace(-2, 2, longest))  # of matches of 1, 2, ... frames; the model has 0

    def forward(self, logits: Tensor, past: Tensor) -> Tensor:
        """Logits (B, T, P) of frames, to those of the mixture, of which frame t knows `past` (B, T, P) up to t.

        `past` is one frame late, and all of it has to be there, from the first frame on.
        """
        model, recalled = self.recalled(past)
        absent = (1 - model - recalled).clamp(min=0)
        sounds, rests = model * logits.sigmoid() + recalled, model * (-logits).sigmoid() + absent
        smallest = torch.finfo(logits.dtype).tiny  # logarithms of what has vanished stay finite
        return sounds.clamp(min=smallest).log() - rests.clamp(min=smallest).log()

    def recalled(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """The share left to the model, (B, T, 1), and how much of the rest each note has, (B, T, P)."""
        length = match_lengths(past, len(self.scores))  # (B, T, T)
        scores = F.pad(self.scores, (1, 0), value=-torch.inf)[length]
        weights = F.pad(scores, (1, 0)).softmax(-1)  # (B, T, 1 + T): the model, then earlier places
        following = F.pad(past[:, 1:], (0, 0, 0, 1))
        return weights[..., :1], weights[..., 1:] @ following


def match_lengths(past: Tensor, longest: int) -> Tensor:
    """(B, T, P) of 0 and 1 -> (B, T, T) int64: how many frames up to t equal those up to s < t, `longest` at most."""
    size, num_frames = past.sum(-1), past.shape[1]
    both = past @ past.transpose(1, 2)
    same = (both == size[:, :, None]) & (both == size[:, None, :])  # (B, T, T)
    run = same.tril(-1)
    length = run.long()
    for back in range(1, longest):
        run = run & F.pad(same, (back, 0, back, 0))[:, :num_frames, :num_frames]
        length = length + run
    return length
