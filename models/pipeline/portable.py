"""Portable models: a zip with everything that a program of somebody else's needs to make images.

    README.md       what to do with the other files, and the noise function
    network.onnx    the network
    samplers.json   the tables of samplers: rows of numbers
    card.json       facts of the model: the size of its images, its classes, its origin

The same image is the same function of its seed as in the service.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from models.diffusion.schedule import MAX_TRAIN_TIMESTEPS, NoiseSchedule
from models.fields import Invalid
from models.nets.graph import unet_graph
from models.nets.onnx_file import onnx_file
from models.pipeline.archive import archive_entry
from models.pipeline.card import ModelCard
from models.pipeline.folder import read_config, read_weights
from models.sampling.plan import K
from models.sampling.request import (
    DEFAULT_CONSISTENCY_STEPS,
    DEFAULT_STEPS,
    MAX_CONSISTENCY_STEPS,
    SampleRequest,
    plan_for,
)
from models.sampling.samplers import (
    DEFAULT_SAMPLER,
    SAMPLERS,
    SamplerName,
    default_spacing,
)

README = Path(__file__).with_name("portable.md")
STEPS = (DEFAULT_STEPS, 10, 50)  # the first is the default
CONSISTENCY_STEPS = (DEFAULT_CONSISTENCY_STEPS, 1, 4)

# A row's numbers: the name in the file, which is that of the README, and the column of the plan.
COLUMNS = {
    "c_in": K.C_IN,
    "c_noise": K.C_NOISE,
    "p_x": K.P_X,
    "p_y": K.P_F,
    "k_x": K.K_X,
    "k_0": K.K_0,
    "k_1": K.K_1,
    "k_2": K.K_2,
    "k_s": K.K_S,
}

Files = Mapping[str, bytes]


def portable_files(
    card: ModelCard,
    facts: Mapping[str, object],
    samplers: Sequence[SamplerName] = (),
    steps: Sequence[int] = (),
    *,
    max_steps: int = MAX_TRAIN_TIMESTEPS,
) -> Files:
    """Return the archive's files but the network. `facts` are added to those of the card. Without
    samplers all that suit the model are taken, without steps `STEPS`.

    Raises Invalid, naming the field, for a sampler or steps that do not suit the model.
    """
    about = json.dumps({**facts, **card.to_dict()}, indent=2)
    columns = json.dumps(list(COLUMNS))
    tables = ",\n".join(map(json.dumps, _tables(card, samplers, steps, max_steps)))  # one to a line
    return {
        "README.md": README.read_bytes(),
        "card.json": f"{about}\n".encode(),
        "samplers.json": f'{{"columns": {columns},\n"tables": [\n{tables}\n]}}\n'.encode(),
    }


def write_portable_archive(files: Files, folder: Path, archive: Path) -> None:
    """Write a zip of the files and of the network of a model's folder; the same arguments give the
    same bytes. Raises Invalid for a network that takes more than 2 GB."""
    config = read_config(folder)
    weights = read_weights(folder, config)
    network = onnx_file(unet_graph(config.net, config.image_size), weights)
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(archive_entry(name), content, zipfile.ZIP_DEFLATED)
        with file.open(archive_entry("network.onnx"), "w", force_zip64=True) as sink:
            for part in network:  # not compressed: weights do not shrink
                sink.write(part)


def _tables(
    card: ModelCard, samplers: Sequence[SamplerName], steps: Sequence[int], max_steps: int
) -> Iterator[dict[str, object]]:
    """Yield the tables, the default one first."""
    suitable = _suitable_samplers(card)
    most = min(
        MAX_CONSISTENCY_STEPS if card.consistency else max_steps, card.schedule.num_train_timesteps
    )
    for name in samplers:
        if name not in suitable:
            raise Invalid("sampler", name, f"this model takes one of {suitable}")
    for count in steps:
        if not 1 <= count <= most:
            raise Invalid("num_inference_steps", count, f"it must lie in 1..{most}")
    usual = CONSISTENCY_STEPS if card.consistency else STEPS
    counts = dict.fromkeys(steps or (min(count, most) for count in usual))
    for name, count in product(dict.fromkeys(samplers or suitable), counts):
        yield _table(card, name, count)


def _suitable_samplers(card: ModelCard) -> tuple[SamplerName, ...]:
    """Return the samplers that a model takes, the default first."""
    no_signal = NoiseSchedule.from_config(card.schedule).alpha[-1] == 0.0
    names = (
        name
        for name, entry in SAMPLERS.items()
        if entry.for_distilled == card.consistency and not (entry.needs_signal and no_signal)
    )
    return tuple(sorted(names, key=lambda name: name != DEFAULT_SAMPLER))


def _table(card: ModelCard, sampler: SamplerName, steps: int) -> dict[str, object]:
    labels = (0,) if card.class_names else None  # the rows are the same for all
    request = SampleRequest(0, sampler=sampler, num_inference_steps=steps, labels=labels)
    plan = plan_for(card, request)
    return {
        "sampler": sampler,
        "num_inference_steps": steps,
        "spacing": default_spacing(sampler, card.schedule.name, card.sampling.spacing),
        "start": _shortest(np.float32(plan.from_noise)),
        "rows": [[_shortest(row[column]) for column in COLUMNS.values()] for row in plan.rows],
    }


def _shortest(number: np.float32) -> float:
    """Return the number of the fewest digits that is this float32 once it is rounded to one."""
    return float(str(number))
