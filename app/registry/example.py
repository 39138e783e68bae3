"""The model that an empty service begins with, so that there is something to see at once."""

import tempfile
from pathlib import Path

import sqlalchemy as sa

from app.logs import log
from app.registry.upload import read_upload, store_upload
from app.services import Services
from store.database import Database
from store.datasets import DatasetRecord
from store.errors import ModelConflict
from store.jobs.record import Job
from store.models import ModelRecord, change_model

NAME = "emoji"
ARCHIVE = Path(__file__).with_name("emoji.zip")  # examples/emoji/README.md says how it was made


def add_example(services: Services) -> None:
    """Store the example's model if the service has no model, no dataset and no job."""
    if not services.settings.example_model or not _is_empty(services.database):
        return
    with tempfile.TemporaryDirectory(dir=services.settings.locations.data_dir) as scratch:
        uploaded = read_upload(ARCHIVE, Path(scratch) / "model", services.settings.max_model_bytes)
        try:
            store_upload(services.database, services.artifacts, uploaded, NAME, uploaded.license)
            change_model(services.database, NAME, visibility="shared")
        except ModelConflict:  # another host was faster
            return
    log.info("the example's model was added", model=NAME)


def _is_empty(database: Database) -> bool:
    with database.session() as session:
        return not any(
            session.scalar(sa.select(sa.exists().select_from(record)))
            for record in (ModelRecord, DatasetRecord, Job)
        )
