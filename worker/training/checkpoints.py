"""The checkpoints of one attempt at a training.

Each is written whole under a key of its own, then entered into the record, whose pointer
decides. Last, checkpoints that are not kept any longer are removed.
"""

import shutil
from pathlib import Path, PurePosixPath

import structlog

from host.tracing import span
from models.training.checkpoint import load_checkpoint, save_checkpoint
from models.training.state import TrainState
from store.artifacts import ArtifactStore
from store.database import Database
from store.errors import ArtifactDamaged, ArtifactNotFound
from store.jobs import claims
from store.jobs.checkpoints import Checkpoint, best_of, checkpoint_files, list_checkpoints
from store.jobs.events import NewEvent
from store.jobs.files import attempt_of, checkpoint_key, samples_key
from store.jobs.kinds import JOB_KINDS
from worker.training.log import TrainLog
from worker.training.snapshot import Snapshot

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

    def write(self, state: TrainState, lines: TrainLog, snapshot: Snapshot | None) -> None:
        """Write a checkpoint of this state, with the `snapshot` of it if one was taken.

        Raises LostLease.
        """
        with span("checkpoint", {"diffusion.step": state.step}):
            self._write(state, lines, snapshot)

    def _write(self, state: TrainState, lines: TrainLog, snapshot: Snapshot | None) -> None:
        key = checkpoint_key(self._job_id, self._fence, state.step)
        folder = self._scratch / f"checkpoint-{state.step}"
        save_checkpoint(state, folder)
        lines.save(folder)
        files = self._artifacts.upload_folder(folder, key)
        checkpoint = Checkpoint(
            job_id=self._job_id,
            step=state.step,
            key=key,
            num_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            seconds=state.elapsed(),
            score=snapshot.score if snapshot else None,
            files=files,
        )
        shutil.rmtree(folder)
        if snapshot:
            self._artifacts.put_bytes(samples_key(self._job_id, state.step), snapshot.grid)
        claims.record_checkpoint(
            self._database,
            self._job_id,
            self._fence,
            key,
            state.step,
            checkpoint=checkpoint,
            keep=self._keep,
            events=_events(self._job_id, state.step, snapshot),
        )
        self._prune()
        log.info("checkpoint", step=state.step)

    def load(self, key: str, device: str) -> tuple[TrainState, Path]:
        """Return the state, and the folder with the rest of the checkpoint. Raises
        ArtifactDamaged."""
        folder = self._scratch / PurePosixPath(key).name
        files = checkpoint_files(self._database, key)
        try:
            self._artifacts.download_folder(key, folder, files)
        except ArtifactNotFound:
            raise ArtifactDamaged(key, "it is missing") from None
        return load_checkpoint(folder, device), folder

    def best(self) -> Checkpoint | None:
        return best_of(list_checkpoints(self._database, self._job_id))

    def _prune(self) -> None:
        """Remove the checkpoints that are not kept, also leftovers of earlier attempts that were
        lost between two writes; ignore later attempts."""
        kept = {checkpoint.key for checkpoint in list_checkpoints(self._database, self._job_id)}
        folders = {
            str(PurePosixPath(key).parent)
            for key in self._artifacts.keys(f"jobs/{self._job_id}")
            if PurePosixPath(key).parent.name.startswith("checkpoint-")
            and attempt_of(key) <= self._fence
        }
        for folder in folders - kept:
            self._artifacts.delete_prefix(folder)


def _events(job_id: str, step: int, snapshot: Snapshot | None) -> list[NewEvent]:
    events = []
    if snapshot:
        href = f"{JOB_KINDS['train'].address(job_id)}/samples/{step}"
        events.append(NewEvent("preview", {"step": step, "href": href}))
        if snapshot.score is not None:
            events.append(NewEvent("evaluation", {"step": step, "score": snapshot.score}))
    return [*events, NewEvent("checkpoint", {"step": step})]
