"""The file of a model for those who download it, in each format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.http.conditional import etag_of
from app.http.errors import InvalidInput
from app.registry.card import model_card
from app.registry.facts import readme_text
from app.registry.schema import model_answer
from app.services import Services
from models.fields import Invalid
from models.pipeline.archive import write_model_archive
from models.pipeline.card import ModelCard
from models.pipeline.folder import OURS, read_null_class
from models.pipeline.portable import portable_files, write_portable_archive
from models.pipeline.readme import usage, write_readme
from models.sampling.samplers import SamplerName
from store.models import ModelRecord


@dataclass(frozen=True)
class Download:
    """A file whose bytes are told by `etag`; `write` makes it from the model's folder."""

    name: str
    etag: str
    write: Callable[[Path, Path], None]


def diffusers_download(record: ModelRecord) -> Download:
    """Return a zip of a folder that diffusers loads, with a model card as its README."""
    readme, card = readme_text(model_answer(record)), ModelCard.from_dict(record.details)

    def write(folder: Path, archive: Path) -> None:
        ours = (folder / OURS).exists()  # diffusers' own folders are known to who uploaded them
        program = usage(card, read_null_class(folder)) if ours else ""
        write_readme(folder, card, record.license, readme, program)
        write_model_archive(folder, archive)

    # The prefix names the weights and the config; `created_at` a README that was uploaded.
    said = f"{record.artifact_prefix}\n{record.created_at}\n{record.license}\n{readme}{usage(card)}"
    return Download(f"{record.name}.zip", etag_of(said.encode()), write)


def portable_download(
    services: Services, record: ModelRecord, samplers: Sequence[SamplerName], steps: Sequence[int]
) -> Download:
    """Return a zip with the network in ONNX and the samplers' tables. Raises InvalidInput for a
    sampler or steps that do not suit the model."""
    learned = {"dataset", "dataset_version", "dataset_digest"}
    said = {"name", "digest", "license", "origin", "network", "created_at", *learned}
    facts = {**model_answer(record).model_dump(mode="json", include=said), **record.details}
    card, most = model_card(services.artifacts, record), services.settings.max_inference_steps
    try:
        files = portable_files(card, facts, samplers, steps, max_steps=most)
    except Invalid as error:
        raise InvalidInput.parameter(error.field, str(error), "query") from error
    etag = etag_of(b"".join(files.values()))
    return Download(f"{record.name}-onnx.zip", etag, partial(write_portable_archive, files))
