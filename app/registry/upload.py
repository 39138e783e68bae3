"""A model from a zip: read, checked, and stored with its record."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from app.http.errors import reported_at
from models.pipeline.archive import Skipped, extract_model_archive
from models.pipeline.card import ModelCard
from models.pipeline.folder import (
    SCHEDULER,
    choose_null_class,
    read_config,
    read_weights,
    unused_scheduler_fields,
    weights_digest,
)
from models.pipeline.readme import read_license
from store import models
from store.access.owners import new_name
from store.access.quotas import check_space
from store.artifacts import ArtifactStore
from store.database import Database
from store.errors import ModelConflict, ModelNotFound
from store.jobs.requests import model_names
from store.models import ModelRecord


@dataclass(frozen=True)
class Uploaded:
    """An extracted model: its folder, its card, the sha256 of its weights, the license that its
    README gives, and the files that are no part of it."""

    folder: Path
    card: ModelCard
    digest: str
    license: str | None
    skipped: list[Skipped]
    number: str = field(default_factory=lambda: secrets.token_hex(4))  # of the upload

    def prefix(self, name: str) -> str:
        """Return where its artifacts are under this name. No other upload has the same, so that
        what the engine keeps under it is right even if the model is replaced, and what the trash
        keeps stays as it was."""
        return f"models/{name}/{self.digest[:16]}-{self.number}"


def read_upload(
    archive: Path, folder: Path, max_bytes: int, null_class: int | None = None
) -> Uploaded:
    """Extract an uploaded model to `folder`, and check its config and its weights.

    Raises InvalidInput at the body, or at `null_class`.
    """
    with reported_at(""):
        skipped = extract_model_archive(archive, folder, max_bytes=max_bytes)
        if null_class is not None:
            with reported_at("null_class", "query"):
                choose_null_class(folder, null_class)
        config = read_config(folder)
        read_weights(folder, config)
        skipped += [
            Skipped(f"{SCHEDULER}: {field}", "a request chooses its sampler")
            for field in unused_scheduler_fields(folder)
        ]
        card, digest = ModelCard.of(config), weights_digest(folder)
        return Uploaded(folder, card, digest, read_license(folder), skipped)


def store_upload(
    database: Database,
    artifacts: ArtifactStore,
    uploaded: Uploaded,
    name: str,
    license_: str | None,
) -> tuple[ModelRecord, bool]:
    """Store an uploaded model; return its record and whether it is new. One that is there already
    and was found damaged is stored anew.

    Raises ModelConflict where another model has the name, or a job is about to take it.
    """
    name = new_name(database.caller, "name", name)
    try:
        known = models.get_model(database, name)
    except ModelNotFound:
        pass
    else:
        if known.digest != uploaded.digest:
            raise ModelConflict(f"there is a model {name!r} with other weights")
        if differing := ModelCard.from_dict(known.details).first_difference(uploaded.card):
            raise ModelConflict(
                f"there is a model {name!r} with these weights, but another {differing}"
            )
        if known.damage is not None:
            files = artifacts.upload_folder(uploaded.folder, known.artifact_prefix)
            known = models.restore_model(database, name, files)
        return known, False
    if name in model_names(database):
        raise ModelConflict(f"a job is about to make a model {name!r}")
    num_bytes = sum(f.stat().st_size for f in uploaded.folder.rglob("*") if f.is_file())
    check_space(database, num_bytes)
    prefix = uploaded.prefix(name)
    files = artifacts.upload_folder(uploaded.folder, prefix)
    record = ModelRecord(
        name=name,
        digest=uploaded.digest,
        details=uploaded.card.to_dict(),
        artifact_prefix=prefix,
        num_bytes=num_bytes,
        license=license_,
        files=files,
    )
    return models.create_model(database, record), True
