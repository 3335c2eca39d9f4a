"""`genai report`: all that is known of a run, gathered into one HTML page that fetches nothing."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_cli import runs, schema
from genai_cli.commands.doctor import data_of, examine, measure
from genai_cli.config import ReportConfig
from genai_cli.data.base import DataError, Dataset, Split
from genai_cli.doctor.signs import Reference, as_rows, nearest_of, positions
from genai_cli.engine.device import choose_device
from genai_cli.engine.figures import first_batch
from genai_cli.engine.progress import Progress
from genai_cli.engine.sampling import draw
from genai_cli.engine.storage import check_writable
from genai_cli.errors import ConfigError, ExitCode
from genai_cli.locate import read_config, read_lines
from genai_cli.media.files import write_file
from genai_cli.metrics.record import record_files
from genai_cli.models.base import GenerativeModel
from genai_cli.nn.random import SampleRandom
from genai_cli.report import sections
from genai_cli.report.html import Markup, element, join
from genai_cli.report.page import Section, no, page
from genai_cli.report.pictures import audio, film, show
from genai_cli.runs import TrainedRun

SHOWN = {"image": 64, "points": 1000, "text": 4, "music": 4, "molecules": 16, "rolls": 4}  # samples, by modality
SHOWN |= {"series": 12, "audio": 8}
COMPARED = 128  # samples that the doctor measures
NEIGHBOURS = 12
PATHS, STOPS = 6, 9  # of the interpolations
TRAVERSED, REACH = 8, 2.0  # coordinates, and standard deviations to each side


def run(config: ReportConfig, *, folder: Path) -> ExitCode:
    """Write the report of the run in `folder`."""
    device = choose_device(config.device)
    trained = runs.load_trained(
        folder, schema.read_run_config(folder), checkpoint=config.checkpoint, weights=config.weights, device=device
    )
    path = Path(config.out) if config.out else folder / "report.html"
    check_writable(path.parent, f"out={path}")
    content = build(trained, config, device).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)
    print(f"written to {path}")
    return ExitCode.DONE


@torch.no_grad()
def build(trained: TrainedRun, config: ReportConfig, device: torch.device) -> str:
    """The page of a trained run."""
    spec, model = trained.spec, trained.model
    shown = SHOWN.get(model.shown_spec.modality, 64)
    count = max(shown, 8 if spec.is_tokens else COMPARED)
    progress = Progress(first=0, total=count, unit="samples")
    try:
        samples = draw(
            model, count, seed=config.seed, batch_size=64, device=device, sources=_sources(trained),
            report=progress.advance,
        )  # fmt: skip
    finally:
        progress.close()
    dataset, signs, notes = None, {}, []
    try:
        dataset = data_of(trained)
        signs = measure(trained, dataset, samples, seed=config.seed, examples=config.examples, device=device)
    except (DataError, ConfigError) as error:
        notes.append(f"The data are not at hand, so nothing is compared with them: {error}")
    examination = examine(trained.folder, trained.config, trained.step, signs)
    frames = film(trained.folder / "samples", model.shown_spec, trained.config.train.num_samples)
    parts = [
        Section("Samples", join(show(model.shown(samples[:shown]), model.shown_spec, "samples"), audio(samples, spec))),
        sections.film(frames),
        sections.doctor(examination.present, examination.past, signs),
        sections.metrics(_newest_evaluation(trained.folder)),
        sections.curves(read_lines(trained.folder / "metrics.jsonl")),
    ]
    if dataset is not None:
        parts.append(_neighbours(samples, trained, dataset, config))
        parts += _reconstructions(trained, dataset, device)
    parts += _latent(trained, config.seed, device)
    parts.append(sections.background(read_config(trained.folder), _read_json(trained.folder / "provenance.json")))
    names = f"{trained.config.model['name']} on {runs.name_of_data(trained.config)}"
    return page(names, _lead(trained, notes), parts)


def _lead(trained: TrainedRun, notes: list[str]) -> Markup:
    size = sum(parameter.numel() for parameter in trained.model.parameters())
    weights = "averaged weights" if trained.averaged else "weights"
    words = f"{trained.folder}: {weights} of step {trained.step:,}, {size:,} parameters."
    return join(element("p", words, class_="note"), *(element("p", note, class_="warning") for note in notes))


def _newest_evaluation(folder: Path) -> dict[str, Any] | None:
    """The newest record of `genai evaluate` that has a list of metrics."""
    for path in reversed(record_files(folder)):
        record = _read_json(path)
        if record is not None and isinstance(record.get("metrics"), list):
            return record
    return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _sources(trained: TrainedRun) -> Split | None:
    """What a model that translates makes its samples from: without the data there are none."""
    return None if trained.model.translates is None else data_of(trained).load("validation")


def _neighbours(samples: Tensor, trained: TrainedRun, dataset: Dataset, config: ReportConfig) -> Section:
    """Samples above the training examples nearest to them."""
    spec = trained.spec
    if spec.is_tokens:
        return Section("Nearest training data", no("of texts, the doctor counts copied passages instead"))
    train = dataset.load("train")
    limit = min(config.examples or len(train), len(train))
    reference = Reference.of(train, dataset.load("validation"), spec, limit=limit)
    distance, place = nearest_of(as_rows(samples, spec), reference.train)
    held_out, _ = nearest_of(as_rows(samples, spec), reference.held_out)
    words = (
        f"Distance of a sample to the nearest of {len(reference.train):,} training examples: median "
        f"{distance.median():.3g}; of {len(reference.held_out):,} held-out ones: {held_out.median():.3g}."
    )
    body = [element("p", words, class_="note")]
    if spec.modality == "image":
        nearest = train.fetch(positions(train, limit)[place[:NEIGHBOURS]])[spec.key].cpu()
        pairs = torch.cat([samples[:NEIGHBOURS], nearest])
        body.append(element("p", "Above samples, below the training image nearest to each.", class_="note"))
        body.append(show(pairs, spec, "samples above their nearest training images", columns=NEIGHBOURS))
    return Section("Nearest training data", join(*body))


def _reconstructions(trained: TrainedRun, dataset: Dataset, device: torch.device) -> list[Section]:
    """What the model shows beside its samples: data above their reconstructions."""
    batch = first_batch(dataset.load("validation"), 16, seed=0, device=device)
    pictures = trained.model.pictures(batch)
    return [
        Section(name.capitalize(), show(examples, trained.spec, name, columns=math.ceil(math.sqrt(len(examples)))))
        for name, examples in pictures.items()
    ]


def _latent(trained: TrainedRun, seed: int, device: torch.device) -> list[Section]:
    """Walks between codes and along coordinates, where the model has one latent vector."""
    model = trained.model
    if type(model).decode is GenerativeModel.decode or trained.spec.is_tokens:
        return []
    codes = model.draw_latent(SampleRandom(seed, range(256), device=device))  # (256, latent_dim)
    share = torch.linspace(0, 1, STOPS, device=device).view(-1, 1)
    walks = [torch.lerp(codes[2 * i], codes[2 * i + 1], share) for i in range(PATHS)]
    between = show(model.decode(torch.cat(walks)).cpu(), trained.spec, "interpolations", columns=STOPS)
    words = f"{PATHS} walks in a straight line from one code drawn from the prior to another."
    found = [Section("Interpolation", join(element("p", words, class_="note"), between))]
    if trained.spec.modality == "image":
        found.append(_traversal(model, codes, trained))
    return found


def _traversal(model: GenerativeModel, codes: Tensor, trained: TrainedRun) -> Section:
    """One drawn code, changed along the coordinates that change its picture most."""
    mean, reach = codes.mean(0), REACH * codes.std(0)  # (latent_dim,)
    share = torch.linspace(-1, 1, STOPS, device=codes.device)
    is_moved = torch.eye(len(mean), dtype=torch.bool, device=codes.device)  # row i moves coordinate i
    ends = [model.decode(torch.where(is_moved, mean + side * reach, codes[0])) for side in (-1, 1)]
    effect = (ends[1] - ends[0]).flatten(1).norm(dim=1)
    chosen = effect.topk(min(TRAVERSED, len(effect))).indices
    rows = [torch.where(is_moved[i], mean + share.view(-1, 1) * reach, codes[0]) for i in chosen]
    names = ", ".join(map(str, chosen.tolist()))
    words = f"One code, with coordinate {names} (top to bottom) from {-REACH:g} to {REACH:g} standard deviations."
    picture = show(model.decode(torch.cat(rows)).cpu(), trained.spec, "traversals", columns=STOPS)
    return Section("Traversal", join(element("p", words, class_="note"), picture))
