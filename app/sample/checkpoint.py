"""The checkpoints of a training, as models that images are made by."""

from collections.abc import Collection

from app.http.errors import InvalidInput
from app.services import Services
from models.pipeline.card import ModelCard
from models.training.checkpoint_files import AVERAGE, STATE, model_config_of
from store.jobs.checkpoints import Checkpoint, list_checkpoints
from store.jobs.kinds import JOB_KINDS
from store.jobs.requests import get_job
from store.models import ModelRecord

Model = tuple[ModelRecord, ModelCard]


def checkpoint_models(services: Services, job_id: str, steps: Collection[int]) -> dict[int, Model]:
    """Return the checkpoints of a training at these steps, those that are kept, as records of
    models that are in no list. Raises JobNotFound, ArtifactNotFound and ArtifactDamaged."""
    job = get_job(services.database, job_id, JOB_KINDS["train"].name)
    return {
        checkpoint.step: _model(services, f"{job.model_name}@{checkpoint.step}", checkpoint)
        for checkpoint in list_checkpoints(services.database, job.id)
        if checkpoint.step in steps
    }


def _model(services: Services, name: str, checkpoint: Checkpoint) -> Model:
    files = checkpoint.files or {}
    if not files.keys() >= {STATE, AVERAGE}:
        raise InvalidInput.pointer(
            "/job", f"checkpoint {checkpoint.step} was written by an earlier version of the service"
        )
    state = services.artifacts.get_bytes(f"{checkpoint.key}/{STATE}", files[STATE])
    card = ModelCard.of(model_config_of(state))
    record = ModelRecord(
        name=name,
        digest=files[AVERAGE],
        details=card.to_dict(),
        artifact_prefix=checkpoint.key,
        files={name: files[name] for name in (STATE, AVERAGE)},
    )
    return record, card
