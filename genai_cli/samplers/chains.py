"""Draws of all places of a sequence together, where each token allows or forbids the next.

A model of hidden tokens guesses every place by itself, and such guesses need not fit each other. `Chain.draw` takes
them as they are, given that the whole sequence keeps the rule: the draw is exact, by messages from the right and
choices from the left, as states of a hidden Markov model are drawn (Frühwirth-Schnatter 1994). Whatever part of it is
then shown can therefore be completed.
"""

import torch
from torch import Tensor

from genai_cli.nn.random import inverse_cdf


class Chain:
    """Sequences whose neighbours are allowed by a table. Tokens that the table treats alike are of one kind."""

    def __init__(self, may_follow: Tensor):
        """`may_follow` (V, V) bool: row i says which tokens may follow token i."""
        alike = torch.cat([may_follow, may_follow.T], 1)
        kinds, self.kind = alike.unique(dim=0, return_inverse=True)  # K of them; (V,), the kind of each token
        self.num_kinds = len(kinds)
        member = torch.stack([(self.kind == k).nonzero()[0, 0] for k in range(self.num_kinds)])
        allowed = may_follow[member][:, member]  # (K, K)
        self.barrier = torch.zeros(allowed.shape, dtype=torch.float64, device=allowed.device)
        self.barrier.masked_fill_(~allowed, -torch.inf)  # log of what is allowed

    def draw(self, logits: Tensor, before: Tensor, threshold: Tensor) -> Tensor:
        """(B, T): a sequence that may follow `before` (B,), each with a probability proportional to
        prod_t softmax(logits_t)[x_t], `logits` (B, T, V), by inverting it at `threshold` (B, T) in [0, 1).

        Raises ValueError where no sequence is possible.
        """
        logits = logits.double()
        ahead = self._messages(logits)
        last, drawn = self.kind[before], []
        for t in range(logits.shape[1]):
            fitting = logits[:, t] + (ahead[:, t] + self.barrier[last])[:, self.kind]  # (B, V)
            if t == 0 and fitting.isneginf().all(1).any():
                raise ValueError("no sequence that can be read back has what is given in these places")
            drawn.append(inverse_cdf(fitting, threshold[:, t : t + 1]))
            last = self.kind[drawn[-1]]
        return torch.stack(drawn, 1)

    def _messages(self, logits: Tensor) -> Tensor:
        """(B, T, K): the log of how much of what comes after t is possible, if the token at t is of a kind."""
        mass = torch.stack(
            [logits.masked_fill(self.kind != k, -torch.inf).logsumexp(2) for k in range(self.num_kinds)], 2
        )  # (B, T, K)
        ahead = torch.zeros_like(mass)
        for t in reversed(range(logits.shape[1] - 1)):
            onwards = mass[:, t + 1] + ahead[:, t + 1]  # (B, K)
            ahead[:, t] = (self.barrier + onwards[:, None]).logsumexp(2)
        return ahead
