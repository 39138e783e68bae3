"""The checkpoints of one attempt at a training: written whole under a key of their own, then told
to the record, whose pointer is what counts; last, those that are not to be kept are removed."""

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import structlog

from models.training.checkpoint import load_checkpoint, save_checkpoint
from models.training.state import TrainState
from store.artifacts import ArtifactStore
from store.database import Database
from store.jobs import claims
from store.jobs.checkpoints import Checkpoint, best_of, list_checkpoints
from store.jobs.events import EventType
from store.jobs.files import attempt_of, checkpoint_key, samples_key
from store.jobs.kinds import JOB_KINDS
from worker.training.log import TrainLog
from worker.training.snapshot import Glance

log = structlog.get_logger("trainer")


class Checkpoints:
    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        job_id: str,
        fence: int,
        scratch: Path,
        keep: int,
    ) -> None:
        self._database, self._artifacts = database, artifacts
        self._job_id, self._fence, self._scratch, self._keep = job_id, fence, scratch, keep

    def write(self, state: TrainState, lines: TrainLog, seen: Glance | None) -> None:
        """`seen` is what a glance at this state showed. Raises LostLease."""
        key = checkpoint_key(self._job_id, self._fence, state.step)
        folder = self._scratch / f"checkpoint-{state.step}"
        save_checkpoint(state, folder)
        lines.save(folder)
        self._artifacts.upload_folder(folder, key)
        checkpoint = Checkpoint(
            job_id=self._job_id,
            step=state.step,
            key=key,
            num_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            seconds=state.elapsed(),
            score=seen.score if seen else None,
        )
        shutil.rmtree(folder)
        if seen:
            self._artifacts.put_bytes(samples_key(self._job_id, state.step), seen.grid)
        claims.record_checkpoint(
            self._database,
            self._job_id,
            self._fence,
            key,
            state.step,
            checkpoint=checkpoint,
            keep=self._keep,
            events=_events(self._job_id, state.step, seen),
        )
        self._sweep()
        log.info("checkpoint", step=state.step)

    def load(self, key: str, device: str) -> tuple[TrainState, Path]:
        """The state, and the folder with whatever else was kept with it."""
        folder = self._scratch / PurePosixPath(key).name
        self._artifacts.download_folder(key, folder)
        return load_checkpoint(folder, device), folder

    def best(self) -> Checkpoint | None:
        return best_of(list_checkpoints(self._database, self._job_id))

    def _sweep(self) -> None:
        """Also away with what attempts left that were lost between two writes; those that came
        after this one are none of our business."""
        kept = {checkpoint.key for checkpoint in list_checkpoints(self._database, self._job_id)}
        folders = {
            str(PurePosixPath(key).parent)
            for key in self._artifacts.keys(f"jobs/{self._job_id}")
            if PurePosixPath(key).parent.name.startswith("checkpoint-")
            and attempt_of(key) <= self._fence
        }
        for folder in folders - kept:
            self._artifacts.delete_prefix(folder)


def _events(job_id: str, step: int, seen: Glance | None) -> list[tuple[EventType, dict[str, Any]]]:
    told: list[tuple[EventType, dict[str, Any]]] = []
    if seen:
        told.append(
            (
                "preview",
                {"step": step, "href": f"{JOB_KINDS['train'].address(job_id)}/samples/{step}"},
            )
        )
        if seen.score is not None:
            told.append(("evaluation", {"step": step, "score": seen.score}))
    told.append(("checkpoint", {"step": step}))
    return told
