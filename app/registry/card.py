"""The card of a registered model, complete."""

import tempfile
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath

from app.http.errors import InvalidInput
from models.fields import Invalid
from models.pipeline.card import ModelCard
from models.pipeline.folder import read_config
from store.artifacts import ArtifactStore
from store.errors import ArtifactNotFound
from store.models import ModelRecord


def model_card(artifacts: ArtifactStore, record: ModelRecord) -> ModelCard:
    """Return the card of a model with its sigma_data, on which the rows of a plan depend. Records
    of earlier versions lack it; then it is read from the model's folder, once per process. Raises
    InvalidInput where the files there are gone or malformed."""
    card = ModelCard.from_dict(record.details)
    if card.sigma_data is not None:
        return card
    try:
        sigma_data = _sigma_data(
            artifacts, record.artifact_prefix, record.digest, record.created_at
        )
    except (Invalid, ArtifactNotFound) as error:
        raise InvalidInput.pointer("", str(error)) from error
    return replace(card, sigma_data=sigma_data)


@lru_cache(maxsize=1024)
def _sigma_data(artifacts: ArtifactStore, prefix: str, digest: str, created_at: datetime) -> float:
    """Read the JSON files alone. `digest` and `created_at` tell apart models that had the prefix
    one after the other."""
    with tempfile.TemporaryDirectory() as scratch:
        for key in artifacts.keys(prefix):
            if key.endswith(".json"):
                artifacts.download(key, Path(scratch) / PurePosixPath(key).relative_to(prefix))
        return read_config(Path(scratch)).sigma_data
