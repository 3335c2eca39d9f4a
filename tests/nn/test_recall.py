"""Recall finds what followed the same frames, mixes probabilities, and learns how far to trust a match."""

import pytest
import torch
import torch.nn.functional as F

from genai_cli.nn.recall import Recall, match_lengths

MELODY = [0, 1, 2, 3, 0, 1, 2, 4, 1, 2]


def rolls(*melodies: list[int]) -> torch.Tensor:
    """(B, T, 6) float64 of one note a frame."""
    return F.one_hot(torch.tensor(melodies), 6).double()


@pytest.mark.parametrize("longest", [1, 2, 4])
def test_match_lengths_are_those_of_a_search(longest: int) -> None:
    found = match_lengths(rolls(MELODY), longest)[0]
    for t in range(len(MELODY)):
        for s in range(len(MELODY)):
            run = 0
            while s < t and run < min(longest, s + 1) and MELODY[t - run] == MELODY[s - run]:
                run += 1
            assert found[t, s] == run


def test_frames_of_some_equal_notes_are_no_match() -> None:
    frames = torch.tensor([[[1.0, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]]])
    assert match_lengths(frames, 1)[0].nonzero().tolist() == [[3, 0]]


def test_what_followed_is_mixed_by_the_softmax_of_the_scores() -> None:
    recall = Recall(2).double()
    logits = torch.linspace(-2, 2, 60, dtype=torch.float64).view(1, 10, 6)
    mixed = recall(logits, rolls(MELODY)).sigmoid()[0]
    one, two = recall.scores.exp().tolist()
    model = logits[0].sigmoid()
    torch.testing.assert_close(mixed[:4], model[:4])  # nothing was heard twice
    total = 1 + 2 * two  # at 9 the notes 1, 2 were heard at 2 and at 6; 3 and 4 followed
    expected = (model[9] + two * F.one_hot(torch.tensor(3), 6) + two * F.one_hot(torch.tensor(4), 6)) / total
    torch.testing.assert_close(mixed[9], expected)
    torch.testing.assert_close(mixed[4], (model[4] + one * F.one_hot(torch.tensor(1), 6)) / (1 + one))


def test_a_note_depends_on_no_frame_to_come() -> None:
    recall, logits = Recall(2).double(), torch.zeros(1, 10, 6, dtype=torch.float64)
    whole = recall(logits, rolls(MELODY))
    for t in range(1, 11):
        torch.testing.assert_close(recall(logits[:, :t], rolls(MELODY[:t])), whole[:, :t])


def test_extreme_logits_stay_finite_and_have_gradients() -> None:
    recall = Recall(2)
    logits = torch.tensor([-500.0, 500.0]).repeat(1, 10, 3).requires_grad_()
    mixed = recall(logits, rolls(MELODY).float())
    mixed.sum().backward()
    assert mixed.isfinite().all() and logits.grad.isfinite().all() and recall.scores.grad.isfinite().all()


def test_long_matches_learn_to_be_trusted_and_short_ones_not() -> None:
    """Of a sequence that repeats after pairs but not after single frames."""
    torch.manual_seed(0)
    follows = {(a, b): int(torch.randint(6, ())) for a in range(6) for b in range(6)}
    melodies = []
    for _ in range(16):
        melody = [int(torch.randint(6, ())) for _ in range(2)]
        for _ in range(38):
            is_noise = torch.rand(()) < 0.3
            melody.append(int(torch.randint(6, ())) if is_noise else follows[melody[-2], melody[-1]])
        melodies.append(melody)
    frames = rolls(*melodies)
    recall, past = Recall(2).double(), F.pad(frames, (0, 0, 1, -1))
    optimizer = torch.optim.Adam(recall.parameters(), lr=0.1)
    logits = torch.full_like(frames, -1.6)
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(recall(logits, past), frames)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    short, long = recall.scores.tolist()
    assert long > short + 1
    assert loss < F.binary_cross_entropy_with_logits(logits, frames) - 0.04
