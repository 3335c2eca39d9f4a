"""Facts about CycleGAN: it needs no pairs, finds a map and its inverse, and goes both ways."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.cyclegan import CycleGAN
from genai_cli.nn.random import BatchRandom, SampleRandom

SPEC = Spec("image", (3, 16, 16), (-1.0, 1.0), source=Spec("image", (1, 16, 16), (-1.0, 1.0)))


def build(**options) -> CycleGAN:
    torch.manual_seed(0)
    return CycleGAN(SPEC, **{"width": 3, "depth": 1, "patch": 16, **options})


def batch_of(count: int = 4) -> Batch:
    random = torch.Generator().manual_seed(1)
    source, image = (torch.rand(count, c, 16, 16, generator=random) * 2 - 1 for c in (1, 3))
    return Batch({"source": source, "image": image}, BatchRandom(0, stop=count))


def test_no_loss_looks_at_who_stands_beside_whom() -> None:
    model = build(history=0)
    for loss in (model.discriminator_loss, model.generator_loss):
        batch = batch_of()
        value, _ = loss(batch)
        shuffled, _ = loss(Batch({**batch, "source": batch["source"][[2, 0, 3, 1]]}, batch.random))
        torch.testing.assert_close(shuffled, value)


def test_the_objective_is_the_papers() -> None:
    """Eq. 3 with least squares: (D(G(a)) - 1)^2 + (D(F(b)) - 1)^2 + 10 (|F(G(a)) - a| + |G(F(b)) - b|)."""
    model, batch = build(), batch_of()
    a, b = batch["source"], batch["image"]
    fake_a, fake_b = model.b_to_a(b), model.a_to_b(a)
    games = (model.judge_a(fake_a) - 1).square().mean() + (model.judge_b(fake_b) - 1).square().mean()
    cycle = (model.b_to_a(fake_b) - a).abs().mean() + (model.a_to_b(fake_a) - b).abs().mean()
    value, _ = model.generator_loss(batch)
    torch.testing.assert_close(value, games + 10 * cycle)


def test_discriminators_are_shown_earlier_fakes_in_training_alone() -> None:
    model = build(history=4)
    for _ in range(3):
        model.discriminator_loss(batch_of())
    assert int(model.history_a.count) == int(model.history_b.count) == 4
    assert model.history_b.images.abs().max() > 0
    before = model.history_b.images.clone()
    model.eval().discriminator_loss(batch_of())
    assert torch.equal(model.history_b.images, before)


def test_what_discriminators_see_is_augmented_and_cycles_are_not() -> None:
    plain, augmented = build(history=0), build(history=0, augment="diffaug")
    for loss in ("discriminator_loss", "generator_loss"):
        value, metrics = getattr(plain, loss)(batch_of())
        changed, changed_metrics = getattr(augmented, loss)(batch_of())
        assert (value - changed).abs() > 1e-5
    assert torch.equal(metrics["cycle"], changed_metrics["cycle"])
    assert not torch.equal(metrics["adversarial"], changed_metrics["adversarial"])


class Affine(nn.Module):
    """x -> scale x + shift, of every pixel."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(scale)), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


def test_a_linear_map_is_found_without_pairs_and_so_is_its_inverse() -> None:
    """A is z, B is 0.3 - 0.5 z of other z: z is skewed, so that only this map takes one distribution to the other."""
    torch.manual_seed(0)
    pixel = Spec("image", (1, 16, 16), (-1.0, 1.0), source=Spec("image", (1, 16, 16), (-1.0, 1.0)))
    model = CycleGAN(pixel, width=3, depth=1, patch=1, history=0, cycle_weight=1.0)
    model.a_to_b, model.b_to_a = Affine(-1.0), Affine(-1.0)
    for name in ("judge_a", "judge_b"):
        setattr(model, name, nn.Sequential(nn.Conv2d(1, 16, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 1)))
    players = model.parameter_groups()
    judges = torch.optim.Adam(players["discriminator"], lr=3e-2, betas=(0.5, 0.9))
    translators = torch.optim.Adam(players["generator"], lr=5e-2, betas=(0.5, 0.9))
    found: list[list[float]] = []
    for number in range(500):
        random = BatchRandom(number, stop=16)
        a, z = (-(1 - random.uniform(1, 4, 4)).log() - 1 for _ in range(2))  # of mean 0 and variance 1
        batch = Batch({"source": a, "image": 0.3 - 0.5 * z}, random)
        for optimizer, loss in ((judges, model.discriminator_loss), (translators, model.generator_loss)):
            optimizer.zero_grad()
            loss(batch)[0].backward()
            optimizer.step()
        found.append([p.item() for m in (model.a_to_b, model.b_to_a) for p in (m.scale, m.shift)])
    mean = torch.tensor(found[-125:]).mean(0)
    torch.testing.assert_close(mean, torch.tensor([-0.5, 0.3, -2.0, 0.6]), atol=0.1, rtol=0.15)


def test_samples_go_both_ways() -> None:
    model, batch = build().eval(), batch_of()
    a, b = batch["source"], batch["image"]
    random = SampleRandom(0, range(4))
    assert torch.equal(model.sample(random, given=a), model.a_to_b(a))
    back = model.sample(random, given=b, direction="b_to_a")
    assert torch.equal(back, model.b_to_a(b)) and back.shape[1] == 1
    assert model.sides(direction="b_to_a") == ("image", "source") and model.sides() == ("source", "image")
    columns = model.columns(b, back, direction="b_to_a")
    assert len(columns) == 3 and torch.equal(columns[2], model.a_to_b(back))


def test_distances_to_the_truth_are_told_where_there_are_pairs() -> None:
    assert set(build().eval().evaluate(batch_of())) == {"cycle_a", "cycle_b"}
    paired = CycleGAN(dataclasses.replace(SPEC, is_paired=True), width=3, depth=1, patch=16).eval()
    assert set(paired.evaluate(batch_of())) == {"cycle_a", "cycle_b", "l1_a_to_b", "l1_b_to_a"}


def test_each_distance_is_to_the_truth_of_its_own_domain() -> None:
    """Of two translators that know no more than a level each: pixels of A are 0, those of B are 1."""
    paired = CycleGAN(dataclasses.replace(SPEC, is_paired=True), width=3, depth=1, patch=16).eval()
    a, b = -torch.ones(4, 1, 16, 16), torch.ones(4, 3, 16, 16)
    paired.a_to_b.forward = lambda x: b - 0.4  # 0.2 of the range too dark
    paired.b_to_a.forward = lambda x: a + 1.0  # half of it too bright
    figures = paired.evaluate(Batch({"source": a, "image": b}, BatchRandom(0, stop=4)))
    expected = {"cycle_a": 0.5, "cycle_b": 0.2, "l1_a_to_b": 0.2, "l1_b_to_a": 0.5}
    assert {name: figure.mean().item() for name, figure in figures.items()} == pytest.approx(expected)


def test_identity_is_of_domains_with_the_same_channels() -> None:
    with pytest.raises(ValueError, match=r"model\.identity_weight=5 .* has 1 channels, the other 3"):
        build(identity_weight=5.0)
    grey = dataclasses.replace(SPEC, shape=(1, 16, 16))
    model = CycleGAN(grey, width=3, depth=1, patch=16, identity_weight=5.0)
    batch = batch_of()
    batch["image"] = batch["image"][:, :1]
    value, metrics = model.generator_loss(batch)
    torch.testing.assert_close(value, 2 * metrics["adversarial"] + 10 * metrics["cycle"] + 5 * metrics["identity"])


@pytest.mark.parametrize("side", [30, 12])
def test_sides_that_cannot_be_halved_twice_are_refused(side: int) -> None:
    domain = Spec("image", (1, side, side), (-1.0, 1.0))
    with pytest.raises(ValueError, match=f"multiples of 4, 16 at least, not {side}x{side}"):
        CycleGAN(dataclasses.replace(domain, source=domain))
