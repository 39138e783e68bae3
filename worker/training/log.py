"""The log of a training: a line of metrics every few steps, a line for each evaluation, and the
same for TensorBoard.

The lines so far are part of each checkpoint. An attempt that resumes from a checkpoint continues
its lines, so that no step is in them twice.
"""

import contextlib
import time
from dataclasses import asdict
from pathlib import Path

from models.training.train import TrainStep
from store.artifacts import ArtifactStore
from store.errors import ArtifactNotFound
from store.jobs.files import event_file_key, metrics_key, samples_key
from store.jobs.metrics import EVALUATIONS_FILE, STEPS_FILE, EvaluationLine, StepLine
from worker.training.snapshot import Snapshot
from worker.training.tensorboard import EventFile


class TrainLog:
    def __init__(
        self, artifacts: ArtifactStore, job_id: str, fence: int, created_at: float, scratch: Path
    ) -> None:
        self._artifacts, self._job_id, self._fence = artifacts, job_id, fence
        self._steps: list[str] = []
        self._evaluations: list[str] = []
        self._board = EventFile(scratch / "tensorboard", created_at)
        self._board_key = event_file_key(job_id, fence, created_at)

    def restore(self, folder: Path) -> None:
        """Take over the lines of a checkpoint."""
        for line in StepLine.all_of(_text(folder / STEPS_FILE)):
            self._add_step(line)
        for evaluation in EvaluationLine.all_of(_text(folder / EVALUATIONS_FILE)):
            grid = None
            with contextlib.suppress(ArtifactNotFound):  # made by the job that this one resumes
                grid = self._artifacts.get_bytes(samples_key(self._job_id, evaluation.step))
            self._add_evaluation(evaluation, grid)

    def save(self, folder: Path) -> None:
        """Write the lines into a checkpoint's folder."""
        (folder / STEPS_FILE).write_text("\n".join(self._steps))
        (folder / EVALUATIONS_FILE).write_text("\n".join(self._evaluations))

    def add_step(self, step: TrainStep, mean_loss: float, seconds: float) -> None:
        """Log a step after so many seconds of training."""
        line = StepLine(
            step=step.step,
            loss=round(mean_loss, 6),
            learning_rate=step.learning_rate,
            images_seen=step.images_seen,
            images_per_second=round(step.images_per_second, 1),
            at=round(time.time(), 3),
            seconds=round(seconds, 3),
        )
        self._add_step(line)

    def add_snapshot(self, snapshot: Snapshot, images_seen: int, seconds: float) -> None:
        """Log the state after so many images and seconds of training."""
        line = EvaluationLine(
            step=snapshot.step,
            score=snapshot.score,
            levels=[asdict(level) for level in snapshot.levels],
            images_seen=images_seen,
            at=round(time.time(), 3),
            seconds=round(seconds, 3),
        )
        self._add_evaluation(line, snapshot.grid)

    def publish_metrics(self) -> None:
        """Put the newest lines where readers find them."""
        tail = "\n".join(list(self._steps))
        self._artifacts.put_bytes(metrics_key(self._job_id, self._fence), tail.encode())

    def publish_board(self) -> None:
        self._board.flush()
        self._artifacts.put_file(self._board_key, self._board.path)

    def _add_step(self, line: StepLine) -> None:
        self._steps.append(line.to_json())
        scalars = {
            "loss": line.loss,
            "learning_rate": line.learning_rate,
            "images_per_second": line.images_per_second,
        }
        self._board.add_scalars(line.step, line.at or 0.0, scalars)

    def _add_evaluation(self, line: EvaluationLine, grid: bytes | None) -> None:
        self._evaluations.append(line.to_json())
        at = line.at or 0.0
        scalars = {f"held_out/t={level['t']:04}": level["mse"] for level in line.levels}
        if line.score is not None:
            scalars["held_out/score"] = line.score
        self._board.add_scalars(line.step, at, scalars)
        if grid:
            self._board.add_png(line.step, at, "samples", grid)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
