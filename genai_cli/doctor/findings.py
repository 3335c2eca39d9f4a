"""What the doctor can find: for each finding its title, what it means, what to change, and where the test comes from.

`docs/DOCTOR.md` says the same with the thresholds. The keys are those of `doctor.KEY=note` in a training run.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Disease:
    """One entry of the catalogue."""

    title: str
    meaning: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Finding:
    """A disease found in a run: `evidence` holds the numbers, `since` the step that first showed it."""

    name: str  # a key of CATALOGUE
    step: int  # at which it was found
    since: int
    evidence: str

    @property
    def disease(self) -> Disease:
        return CATALOGUE[self.name]

    @property
    def words(self) -> str:
        """`mode collapse since step 400: ...`, without what to do about it."""
        return f"{self.disease.title} since step {self.since}: {self.evidence}"

    def to_json(self) -> dict[str, Any]:
        """All there is to say, as a line of `findings.jsonl`."""
        return {**asdict(self), **asdict(self.disease)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Finding":
        """Raises KeyError, TypeError or ValueError where `record` is no line of `findings.jsonl`."""
        if record["name"] not in CATALOGUE:
            raise ValueError(f"no finding has the name {record['name']!r}")
        return cls(record["name"], int(record["step"]), int(record["since"]), str(record["evidence"]))


CATALOGUE: dict[str, Disease] = {
    "mode_collapse": Disease(
        "mode collapse",
        "The samples are few kinds of thing, over and over, where the data are many: part of the distribution is lost.",
        "Go back to an earlier checkpoint (genai sample checkpoint=STEP). Of a GAN: a lower optimizer.lr, "
        "optimizer.betas=[0.5,0.999], a larger train.batch_size, or a model whose critic is regularised. Of text: a "
        "higher temperature.",
        "effective number of nearest training examples and of their classes; Srivastava et al. 2017 count modes so",
    ),
    "discriminator_wins": Disease(
        "the discriminator overpowers the generator",
        "It tells every fake from data with certainty, so its verdict says nothing about how to make better ones.",
        "A lower optimizer.overrides.discriminator.lr, optimizer.betas=[0.5,0.999], a narrower discriminator, or a "
        "loss with a gradient penalty or spectral normalisation.",
        "Arjovsky & Bottou 2017, Theorem 2.4: the generator's gradient vanishes as the discriminator becomes perfect",
    ),
    "generator_wins": Disease(
        "the generator overpowers the discriminator",
        "The discriminator takes fakes for data more surely than data: the generator learns its weak spots.",
        "A higher optimizer.overrides.discriminator.lr, more discriminator steps or a wider discriminator; look "
        "whether it learns at all.",
        "Goodfellow et al. 2014: at the optimum of the discriminator fakes are never the likelier ones",
    ),
    "frozen_player": Disease(
        "a player does not learn",
        "Not one of its weights changed between log lines: its learning rate is 0, or no gradient reaches it.",
        "Look at optimizer.lr and optimizer.overrides of that group, and whether its loss depends on its parameters.",
        "the norm of the weights of each group, to the last digit",
    ),
    "posterior_collapse": Disease(
        "posterior collapse",
        "The codes say nothing about the data: the decoder ignores them, and reconstructions are all alike.",
        "A lower model.beta, free bits or a warm-up of the KL term, a weaker decoder, or a larger weight of the data.",
        "active units: Burda et al. 2016, Section 5.2; mutual information: Hoffman & Johnson 2016",
    ),
    "dead_codebook": Disease(
        "a dead codebook",
        "Nearly all entries of the codebook are never used, so the codes hold far fewer bits than they could.",
        "Start again with entries taken from data or restarts of dead ones, a moving average for the codebook, a "
        "smaller codebook or a lower optimizer.lr.",
        "perplexity of the codes: van den Oord et al. 2017",
    ),
    "memorisation": Disease(
        "memorisation",
        "Samples are closer to training data than to held-out data of the same kind: they are copies, not new.",
        "More data or augmentation (dataset.flip=true where mirror images are data), a smaller model, fewer steps, "
        "or an earlier checkpoint.",
        "three-sample test of data copying, Meehan et al. 2020, with equally many examples of both splits",
    ),
    "overfitting": Disease(
        "overfitting",
        "Held-out data fare ever worse while training data fare ever better: what is learned is the training set.",
        "Take the best checkpoint (checkpoint=best). Stop earlier, or use dropout or weight decay, a smaller "
        "model, more data.",
        "the curve of the validation split; of discriminators r_v of Karras et al. 2020 (arXiv:2006.06676), Eq. 1",
    ),
    "exploding_gradients": Disease(
        "exploding gradients",
        "Gradients became a hundred times larger than they were: one batch or one layer dominates the rest.",
        "train.clip_norm=1, a lower optimizer.lr, a warm-up (optimizer.warmup_steps); look for a broken example.",
        "norm of the gradient of each group before clipping (Pascanu et al. 2013), against its median",
    ),
    "vanishing_gradients": Disease(
        "vanishing gradients",
        "Hardly any gradient reaches the parameters: they stay what they are, whatever the data.",
        "Normalisation or residual connections, another activation or initialisation; of a GAN's generator, "
        "model.loss=nonsaturating or a weaker discriminator.",
        "norm of the gradient of each group, against its largest",
    ),
    "high_learning_rate": Disease(
        "the learning rate is too high",
        "Each step is so long that it throws away more than it learns.",
        "A lower optimizer.lr (a third, then a tenth), a warm-up (optimizer.warmup_steps), train.clip_norm=1.",
        "the norm of the weights and the training loss, against their beginning",
    ),
    "not_finite": Disease(
        "a number is not finite",
        "A loss or gradient was NaN or infinite. It never reached the weights: train.nonfinite says what follows.",
        "A lower optimizer.lr, train.clip_norm=1, device.precision=fp32; look at the data and the module named.",
        "the step is computed again, each module watched",
    ),
}
