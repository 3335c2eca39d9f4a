"""Facts about the options of the two-player game: which losses they make, when, and which are refused."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from genai_cli.data.base import Batch, Spec
from genai_cli.models.biggan import BigGAN
from genai_cli.models.cgan import CGAN
from genai_cli.models.dcgan import DCGAN
from genai_cli.models.gan import GAN
from genai_cli.models.infogan import InfoGAN
from genai_cli.models.r3gan import R3GAN
from genai_cli.models.stylegan2 import StyleGAN2
from genai_cli.nn.adversarial import LOSSES
from genai_cli.nn.game import FORBIDS_BATCH_NORM, WEIGHTS, Fakes, Game, check_norm
from genai_cli.nn.norm import BatchNorm
from genai_cli.nn.random import BatchRandom

IMAGES = Spec("image", (1, 16, 16), value_range=(-1.0, 1.0))
POINTS = Spec("points", (2,))
REGULARIZERS = ["none", "spectral", *WEIGHTS]


def judge() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def images(seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed)).tanh()


def random() -> BatchRandom:
    return BatchRandom(0, stop=4)


class Turns:
    """A `Step` that notes who plays, on which batch, and whether the penalty is there."""

    def __init__(self, number: int, spec: Spec = IMAGES):
        self.number, self.spec, self.played = number, spec, []

    def minimize(self, group: str, loss, *, batch: int = 0) -> None:
        rows = Batch({"image": images(batch)}, random())
        _, metrics = loss(rows)
        self.played.append((group, batch, "penalty" in metrics))


def test_the_critic_has_its_turns_each_on_a_batch_of_its_own():
    model = DCGAN(IMAGES, latent_dim=2, width=2, loss="wgan", regularizer="gp", critic_steps=3)
    turns = Turns(0)
    model.train_step(turns)
    assert turns.played == [("discriminator", turn, True) for turn in range(3)] + [("generator", 0, False)]
    assert model.batches_per_step == 3


def test_a_lazy_regulariser_comes_at_its_interval_with_as_much_more_weight():
    model = DCGAN(IMAGES, latent_dim=2, width=2, regularizer="r1", regularizer_weight=2.0, regularizer_every=4)
    for number in range(9):
        turns = Turns(number)
        model.train_step(turns)
        assert turns.played[0][2] == (number % 4 == 0)
    critic = judge()
    game = Game(IMAGES, loss="hinge", regularizer="r1", regularizer_weight=2.0, regularizer_every=4)
    plain, _ = game.discriminator_loss(critic, images(0), images(1), random(), regularize=False)
    lazy, metrics = game.discriminator_loss(critic, images(0), images(1), random(), regularize=True)
    torch.testing.assert_close(lazy, plain + 2.0 * 4 * metrics["penalty"])


@pytest.mark.parametrize("joins", [False, True])
def test_both_penalties_are_the_sum_of_each(joins):
    critic, penalty = judge(), {}
    for regularizer in ("r1", "r2", "r1r2"):
        game = Game(IMAGES, loss="nonsaturating", regularizer=regularizer, joins_passes=joins)
        _, metrics = game.discriminator_loss(critic, images(0), images(1), random())
        penalty[regularizer] = metrics["penalty"]
    torch.testing.assert_close(penalty["r1"] + penalty["r2"], penalty["r1r2"])
    assert penalty["r1"] > 0


def test_the_relativistic_generator_plays_with_the_sides_changed():
    critic = judge()
    game = Game(IMAGES, loss="relativistic")
    found, _ = game.generator_loss(critic, images(1), images(0), random())
    expected, _ = game.discriminator_loss(critic, images(1), images(0), random())
    torch.testing.assert_close(found, expected)


def test_the_batch_of_the_data_set_is_left_as_it_is():
    """It is kept for the next player: no gradient may be asked of it."""
    real = images(0)
    game = Game(IMAGES, loss="nonsaturating", regularizer="r1")
    game.discriminator_loss(judge(), real, images(1), random())
    assert not real.requires_grad


def test_state_follows_training_alone():
    lecam = Game(IMAGES, loss="hinge", regularizer="lecam")
    ada = Game(IMAGES, loss="nonsaturating", augment="ada")
    for game, buffer in ((lecam, lecam.lecam.averages), (ada, ada.augment.signs)):
        game.eval()
        game.discriminator_loss(judge(), images(0), images(1), random())
        assert buffer.count_nonzero() == 0
        game.train()
        game.discriminator_loss(judge(), images(0), images(1), random())
        assert buffer.count_nonzero() > 0
        assert set(game.state_dict())  # and it is saved
    assert not Game(IMAGES, loss="nonsaturating").state_dict()


@pytest.mark.parametrize("loss", LOSSES)
def test_ada_begins_to_count_where_the_discriminator_cannot_tell(loss):
    """There the best constant D of each loss stays: one a little above it takes all data for data, one below none."""
    level = LOSSES[loss].undecided
    if level is None:
        with pytest.raises(
            ValueError, match=rf"ada with model\.loss={loss} .*nonsaturating, minimax, lsgan, hinge, or"
        ):
            Game(IMAGES, loss=loss, regularizer="r1", augment="ada")
        constant = torch.zeros(3, 1)
        torch.testing.assert_close(*(LOSSES[loss].discriminator(constant + c, constant + c) for c in (0.0, 7.0)))
        return
    output = torch.full((3, 1), level, requires_grad=True)
    assert torch.autograd.grad(LOSSES[loss].discriminator(output, output), output)[0].abs().max() < 1e-6
    for logit, count in ((level + 0.1, 4), (level, 0), (level - 0.1, -4)):
        game = Game(IMAGES, loss=loss, augment="ada")
        game.discriminator_loss(lambda x, logit=logit: torch.full((len(x), 1), logit), images(0), images(1), random())
        assert game.augment.signs.tolist() == [count, 4]


def test_what_ada_does_is_a_metric_of_its_own():
    game = Game(IMAGES, loss="hinge", augment="ada")
    game.augment.p.fill_(0.3)
    _, metrics = game.discriminator_loss(judge(), images(0), images(1), random())
    game.augment.p.fill_(0.4)
    assert metrics["augment_probability"].item() == pytest.approx(0.3)
    _, plain = Game(IMAGES, loss="hinge", augment="diffaug").discriminator_loss(judge(), images(0), images(1), random())
    assert plain.keys() == metrics.keys() - {"augment_probability"}


@pytest.mark.parametrize(("loss", "regularizer"), list(itertools.product(LOSSES, REGULARIZERS)))
def test_every_sensible_combination_of_convolutions_gives_finite_gradients(loss, regularizer):
    if loss == "wgan" and regularizer in ("none", "consistency"):
        with pytest.raises(ValueError, match=r"model\.loss=wgan.*nothing limits.*model\.regularizer=gp"):
            DCGAN(IMAGES, loss=loss, regularizer=regularizer)
        return
    torch.manual_seed(0)
    for augment in ("none", "diffaug"):
        model = DCGAN(IMAGES, latent_dim=2, width=2, loss=loss, regularizer=regularizer, augment=augment)
        batch = Batch({"image": images(0)}, random())
        value, _ = model.discriminator_loss(batch)
        for gradient in torch.autograd.grad(value, list(model.discriminator.parameters())):
            assert gradient.isfinite().all()
        value, _ = model.generator_loss(Batch({"image": images(0)}, random()))
        for gradient in torch.autograd.grad(value, list(model.generator.parameters())):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_every_regulariser_of_perceptrons_gives_finite_gradients(regularizer):
    """At a width where the faster linear layer, which has no second derivative, would be taken."""
    model = GAN(IMAGES, latent_dim=2, width=128, loss="hinge", regularizer=regularizer)
    value, _ = model.discriminator_loss(Batch({"image": images(0)}, random()))
    for gradient in torch.autograd.grad(value, list(model.discriminator.parameters())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regularizer_weight": 2.0}, "regularizer_weight=2.0 has no effect with model.regularizer=none"),
        ({"regularizer": "spectral", "regularizer_every": 2}, "regularizer_every=2 has no effect"),
        ({"augment": "diffaug"}, "augment=diffaug changes images, and these are points"),
        ({"regularizer": "consistency"}, "shifts images, and these are points"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        GAN(POINTS, **options)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_batch_normalisation_only_where_the_regulariser_allows_it(regularizer):
    model = DCGAN(IMAGES, latent_dim=2, width=2, regularizer=regularizer)
    has_batch_norm = any(isinstance(layer, BatchNorm) for layer in model.discriminator.modules())
    assert has_batch_norm == (regularizer not in FORBIDS_BATCH_NORM)
    if not has_batch_norm:
        with pytest.raises(ValueError, match=r"discriminator_norm=batch with model\.regularizer"):
            check_norm("batch", regularizer)


@pytest.mark.parametrize("kind", [GAN, DCGAN])
def test_spectral_normalisation_alone_is_the_regulariser_of_that_name(kind):
    losses = []
    for options in ({"regularizer": "spectral"}, {"spectral": True}):
        torch.manual_seed(0)
        model = kind(IMAGES, latent_dim=2, width=4, **options)
        losses.append(model.discriminator_loss(Batch({"image": images(0)}, random()))[0])
    assert torch.equal(*losses)


@pytest.mark.parametrize("regularizer", WEIGHTS)
@pytest.mark.parametrize("kind", [GAN, DCGAN, CGAN, InfoGAN, BigGAN])
def test_spectral_normalisation_goes_with_every_term_of_the_loss(kind, regularizer):
    torch.manual_seed(0)
    spec = Spec("image", (1, 16, 16), value_range=(-1.0, 1.0), classes=("a", "b"))
    model = kind(spec, width=4, loss="wgan", regularizer=regularizer, regularizer_weight=0.7, spectral=True)
    assert all(hasattr(layer, "parametrizations") for layer in model.discriminator.modules() if is_layer(layer))
    assert not any(isinstance(layer, BatchNorm) for layer in model.discriminator.modules())
    batch = Batch({"image": images(0), "label": torch.tensor([0, 1, 0, 1])}, random())
    model.discriminator_loss(batch)  # the averages of lecam leave zero
    plain, whole = [], []
    for found, regularize in ((plain, False), (whole, True)):
        torch.manual_seed(0)
        batch.random.calls = 0
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        found += model.discriminator_loss(batch, regularize=regularize)
        gradients = torch.autograd.grad(found[0], list(model.discriminator.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)
        model.load_state_dict(state)
    assert whole[1]["penalty"] > 0
    torch.testing.assert_close(whole[0], plain[0] + 0.7 * whole[1]["penalty"], atol=1e-4, rtol=1e-3)


def is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding)


def test_spectral_normalisation_bounds_a_critic_and_stands_alone():
    with pytest.raises(ValueError, match="nothing limits"):
        BigGAN(Spec("image", (1, 16, 16), (-1.0, 1.0), classes=("a", "b")), width=2, loss="wgan", spectral=False)
    with pytest.raises(ValueError, match=r"discriminator_norm=batch with model\.spectral=true"):
        DCGAN(IMAGES, width=2, spectral=True, discriminator_norm="batch")
    with pytest.raises(ValueError, match=r"regularizer_weight=2\.0 has no effect with model\.regularizer=none"):
        GAN(IMAGES, width=2, spectral=True, regularizer_weight=2.0)


@pytest.mark.parametrize("kind", [GAN, DCGAN, CGAN, InfoGAN, BigGAN, R3GAN, StyleGAN2])
def test_every_game_has_turns(kind):
    spec = Spec("image", (1, 16, 16), value_range=(-1.0, 1.0), classes=("a", "b"))
    model = kind(spec, **{**kind.tiny, "critic_steps": 3})
    played = []

    class Step:
        number = 0

        def minimize(self, group, loss, *, batch=0):
            played.append((group, batch))

    model.train_step(Step())
    assert played == [*(("discriminator", turn) for turn in range(3)), ("generator", 0)]
    assert model.batches_per_step == 3


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_without_batch_normalisation_the_discriminator_mixes_no_rows(norm):
    model = DCGAN(IMAGES, latent_dim=2, width=2, discriminator_norm=norm)
    whole = model.discriminator(images(0))
    torch.testing.assert_close(whole[:1], model.discriminator(images(0)[:1]))


def test_evaluation_tells_probabilities_or_logits():
    for loss, suffix in (("nonsaturating", "probability"), ("hinge", "logit")):
        model = GAN(IMAGES, latent_dim=2, width=4, loss=loss)
        figures = model.evaluate(Batch({"image": images(0)}, random()))
        assert set(figures) == {f"real_{suffix}", f"fake_{suffix}"}
        assert all(figure.shape == (4,) for figure in figures.values())


def batch_of(step: int, call: int, start: int = 0, stop: int = 4) -> Batch:
    place = {"start": start, "stop": stop, "total": 4}
    return Batch({}, BatchRandom(0, step, call, **place), BatchRandom(1, step, **place))


def generator() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def fakes_of(network: nn.Linear, **options: object) -> tuple[Fakes, list[int]]:
    """`Fakes` of z of three numbers, and a list that grows by the rows of every pass of the network."""
    rows: list[int] = []

    def generate(random: BatchRandom) -> Tensor:
        rows.append(random.size)
        return network(random.normal(3))

    return Fakes(generate, **{"are_fresh": False, "critic_steps": 1, **options}), rows


def test_both_players_see_the_same_fakes_made_once():
    network = generator()
    fakes, rows = fakes_of(network)
    judged = fakes.judged(batch_of(5, 0))
    assert not judged.requires_grad
    learned_on = fakes.learned_on(batch_of(5, 1))
    assert rows == [4] and torch.equal(judged, learned_on)
    expected = torch.autograd.grad(network(BatchRandom(1, 5, stop=4).normal(3)).square().sum(), network.weight)
    assert torch.equal(torch.autograd.grad(learned_on.square().sum(), network.weight)[0], expected[0])


def test_fakes_of_another_step_or_part_are_made_again_from_the_same_noise():
    fakes, rows = fakes_of(generator())
    judged = torch.cat([fakes.judged(batch_of(0, 0, 0, 2)), fakes.judged(batch_of(0, 0, 2, 4))])
    learned_on = torch.cat([fakes.learned_on(batch_of(0, 1, 0, 2)), fakes.learned_on(batch_of(0, 1, 2, 4))])
    assert rows == [2, 2, 2] and torch.equal(judged, learned_on)  # the last part is still there
    fakes.judged(batch_of(1, 0))
    whole = fakes.learned_on(batch_of(0, 1))
    torch.testing.assert_close(whole, judged)


def test_several_turns_of_a_critic_keep_no_graph():
    fakes, rows = fakes_of(generator(), critic_steps=2)
    judged = fakes.judged(batch_of(0, 0))
    assert torch.equal(fakes.learned_on(batch_of(0, 2)), judged) and rows == [4, 4]


def test_fresh_fakes_are_others():
    fakes, rows = fakes_of(generator(), are_fresh=True)
    judged = fakes.judged(batch_of(0, 0))
    assert not torch.equal(fakes.learned_on(batch_of(0, 1)), judged) and rows == [4, 4]
