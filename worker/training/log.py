"""What a training tells of itself, step by step: lines of metrics, evaluations, and the same for
TensorBoard.

The lines so far are part of each checkpoint; an attempt that goes on from one goes on with its
lines, so that no step is in them twice.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from models.training.train import TrainStep
from store.artifacts import ArtifactStore
from store.errors import ArtifactNotFound
from store.jobs.files import event_file_key, metrics_key, samples_key
from worker.training.snapshot import Glance
from worker.training.tensorboard import EventFile

_STEPS, _EVALUATIONS = "metrics.jsonl", "evaluations.jsonl"
_SCALARS = ("loss", "learning_rate", "images_per_second")


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
        """The lines of a checkpoint."""
        for line in _lines(folder / _STEPS):
            self._add_step(json.loads(line))
        for line in _lines(folder / _EVALUATIONS):
            evaluation = json.loads(line)
            grid = None
            with contextlib.suppress(ArtifactNotFound):  # of a job that this one goes on from
                grid = self._artifacts.get_bytes(samples_key(self._job_id, evaluation["step"]))
            self._add_evaluation(evaluation, grid)

    def save(self, folder: Path) -> None:
        """Into a checkpoint."""
        (folder / _STEPS).write_text("\n".join(self._steps))
        (folder / _EVALUATIONS).write_text("\n".join(self._evaluations))

    def add_step(self, step: TrainStep, mean_loss: float) -> None:
        line = {
            "step": step.step,
            "loss": round(mean_loss, 6),
            "learning_rate": step.learning_rate,
            "images_seen": step.images_seen,
            "images_per_second": round(step.images_per_second, 1),
            "at": round(time.time(), 3),
        }
        self._add_step(line)

    def add_glance(self, glance: Glance) -> None:
        line = {
            "step": glance.step,
            "score": glance.score,
            "levels": glance.levels,
            "at": round(time.time(), 3),
        }
        self._add_evaluation(line, glance.grid)

    def publish_metrics(self) -> None:
        """The newest lines where readers find them."""
        tail = "\n".join(list(self._steps))
        self._artifacts.put_bytes(metrics_key(self._job_id, self._fence), tail.encode())

    def publish_board(self) -> None:
        self._board.flush()
        self._artifacts.put_file(self._board_key, self._board.path)

    def _add_step(self, line: dict[str, Any]) -> None:
        self._steps.append(json.dumps(line))
        scalars = {name: line[name] for name in _SCALARS}
        self._board.add_scalars(line["step"], line.get("at", 0.0), scalars)

    def _add_evaluation(self, line: dict[str, Any], grid: bytes | None) -> None:
        self._evaluations.append(json.dumps(line))
        step, at = line["step"], line.get("at", 0.0)
        scalars = {f"held_out/t={level['t']:04}": level["mse"] for level in line["levels"]}
        if line.get("score") is not None:
            scalars["held_out/score"] = line["score"]
        self._board.add_scalars(step, at, scalars)
        if grid:
            self._board.add_png(step, at, "samples", grid)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
