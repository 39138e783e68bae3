"""The trainer: `python -m worker.train_job JOB FENCE SCRATCH`.

Drives models.training.train and stores its results: checkpoints with the log until then, sample
grids, the finished model. Where it is interrupted, another attempt resumes from the last
checkpoint, with the same result.
"""

import contextlib
import contextvars
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from host.loading import loading

with loading():
    import structlog

    from host.tracing import annotate, span
    from models.images.dataset import Dataset
    from models.pipeline.card import ModelCard
    from models.pipeline.folder import weights_digest
    from models.pipeline.torch_folder import load_model, save_model
    from models.training.config import TrainConfig
    from models.training.distributed import PeerLost, ProcessGroup
    from models.training.state import TrainState
    from models.training.train import TrainStep, train
    from store.datasets import get_version
    from store.errors import LostLease
    from store.jobs import claims, requests
    from store.jobs.options import FirstWeights, TrainOptions
    from store.jobs.progress import TrainProgress
    from store.models import ModelRecord
    from worker.dataset_cache import cached_dataset
    from worker.job_process import EXIT_STOPPED, JobProcess, main
    from worker.training.checkpoints import Checkpoints
    from worker.training.fine_tuning import begin_with
    from worker.training.log import TrainLog
    from worker.training.snapshot import take_snapshot
    from worker.training.time_left import TimeLeft

CHECKPOINT_SECONDS = 60.0  # at least this often, whatever checkpoint_every says
FIRST_CHECKPOINT = 0.05  # of the steps: from then on the cost of one is known
LOG_EVERY = 10  # optimiser steps per line of metrics
PUBLISH_SECONDS = 5.0  # between two uploads of the newest lines

log = structlog.get_logger("trainer")


class TrainJob(JobProcess):
    """One attempt at a training.

    `lines` is its log; `latest` is the last step with the seconds that are left after it.
    """

    outages = (*JobProcess.outages, PeerLost)

    def __init__(self, *attempt: Any) -> None:
        super().__init__(*attempt)
        self.group = ProcessGroup.from_environment(self.device)
        self.job = requests.get_job(self.database, self.job_id)
        self.config = TrainConfig.from_dict(self.job.config)
        self.options = TrainOptions.from_dict(self.job.options)
        place = (self.artifacts, self.job_id, self.fence)
        self.lines = TrainLog(*place, self.job.created_at.timestamp(), self.scratch)
        keep = self.options.keep_checkpoints
        self.checkpoints = Checkpoints(self.database, *place, self.scratch, keep)
        self.time_left = TimeLeft(
            self.config.steps,
            self.config.minutes,
            self.config.checkpoint_every,
            CHECKPOINT_SECONDS,
        )
        self.saved_step = self.job.checkpoint_step if self.job.checkpoint_key else None
        self.latest: tuple[TrainStep, float | None] | None = None

    def work(self) -> bool:
        with span("fetch dataset"):
            dataset = self._dataset()
        with span("begin"):
            state = self._begin(dataset)
        with span("train", {"diffusion.first_step": state.step}), self._reporting():
            finished = self._train(state, dataset)
            annotate({"diffusion.last_step": state.step})
        if not finished:
            return False
        self.group.leave()
        self._finish(state, dataset)
        return True

    # Data and state ---------------------------------------------------------------------------

    def _begin(self, dataset: Dataset) -> TrainState:
        if self.job.checkpoint_key:
            state, folder = self.checkpoints.load(self.job.checkpoint_key, self.device)
            state.config = self.config  # the budget may have grown since it was written
            self.lines.restore(folder)
            log.info("resumed", step=state.step)
            return state
        if self.options.fine_tune:
            return self._first_weights(self.options.fine_tune)
        return TrainState.create(self.config, dataset, self.device)

    def _first_weights(self, first: FirstWeights) -> TrainState:
        model = self.fetch_model(first.prefix, first.digest, load_model)
        log.info("begins with a model", model=first.model)
        return begin_with(model, self.config, self.device)

    def _dataset(self) -> Dataset:
        assert self.job.dataset is not None
        return cached_dataset(
            get_version(self.database, self.job.dataset, self.job.dataset_digest),
            self.config.image_size,
            self.config.channels,
            self.config.fit,
            self.artifacts,
            self.settings.locations.data_dir,
            self.scratch,
        )

    # Training ---------------------------------------------------------------------------------

    def _train(self, state: TrainState, dataset: Dataset) -> bool:
        """Train; True if the budget is used, False if stopped, with a checkpoint."""
        window: list[float] = []
        saved_at = time.monotonic()
        for step in train(state, dataset, self.group):
            self.time_left.mark(step.step)
            self.latest = step, self.time_left.seconds(step.step, state.elapsed())
            window.append(step.loss)
            if step.step == 1 or step.step % LOG_EVERY == 0:
                self.lines.add_step(step, sum(window) / len(window), state.elapsed())
                window.clear()
            if self._is_due(step, time.monotonic() - saved_at):
                self._evaluate_and_save(state, dataset)
                saved_at = time.monotonic()
            if self.stop.is_set():
                if state.step != self.saved_step:
                    self.checkpoints.write(state, self.lines, None)
                self.lines.publish_board()
                log.info("stopped", step=state.step)
                return False
        return True

    def _is_due(self, step: TrainStep, seconds_since: float) -> bool:
        if step.step % self.config.checkpoint_every == 0 or seconds_since > CHECKPOINT_SECONDS:
            return True
        first = self.config.steps is not None and self.saved_step is None
        return first and step.progress >= FIRST_CHECKPOINT

    def _evaluate_and_save(self, state: TrainState, dataset: Dataset) -> None:
        images_seen, seconds = state.images_seen, state.elapsed()
        with self.time_left.pause():
            snapshot = take_snapshot(state, dataset)
            self.lines.add_snapshot(snapshot, images_seen, seconds)
            self.lines.publish_metrics()
            self.checkpoints.write(state, self.lines, snapshot)
            self.lines.publish_board()
        self.saved_step = state.step

    # Reports ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        done = threading.Event()
        context = contextvars.copy_context()  # the job's id, for the log
        thread = threading.Thread(target=context.run, args=(self._report, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _report(self, done: threading.Event) -> None:
        """Write the progress once a second, and now and then the newest lines, also to the
        console."""
        reported, published_at = 0, time.monotonic()
        while not done.wait(1.0):
            latest = self.latest
            if latest is None or latest[0].step == reported:
                continue
            reported = latest[0].step
            try:
                claims.record_progress(self.database, self.job_id, self.fence, progress_of(*latest))
                if time.monotonic() - published_at > PUBLISH_SECONDS:
                    published_at = time.monotonic()
                    _log_progress(*latest)
                    self.lines.publish_metrics()
                    self.publish_log()
            except LostLease:
                os._exit(EXIT_STOPPED)
            except Exception:
                log.exception("progress could not be recorded")

    # The model --------------------------------------------------------------------------------

    def _finish(self, state: TrainState, dataset: Dataset) -> None:
        if state.step != self.saved_step:
            self._evaluate_and_save(state, dataset)
        job, kept = self.job, self._state_to_keep(state)
        model, folder = kept.ema_model(), self.scratch / "model"
        details = _card(kept, self.options.fine_tune).to_dict()
        learned = ("dataset", "dataset_version", "dataset_digest")
        origin = {name: getattr(job, name) for name in learned}
        save_model(model, folder, {**details, **origin, "job": self.job_id})
        prefix = f"models/{job.model_name}/{self.job_id}"
        with span("upload model", {"diffusion.model": job.model_name}):
            files = self.artifacts.upload_folder(folder, prefix)
        record = ModelRecord(
            name=job.model_name,
            digest=weights_digest(folder),
            details=details,
            job_id=self.job_id,
            made_by=job.made_by,
            **origin,
            artifact_prefix=prefix,
            num_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            files=files,
        )
        last = progress_of(*self.latest) if self.latest else TrainProgress.from_dict(job.progress)
        progress = replace(last, progress=1.0, eta_seconds=0.0)
        log.info("model made", model=job.model_name, steps=kept.step)
        self.publish_log()
        claims.succeed_with_model(self.database, self.job_id, self.fence, record, progress)

    def _state_to_keep(self, state: TrainState) -> TrainState:
        """Return the state whose averaged weights become the model."""
        best = self.checkpoints.best() if self.options.keep == "best" else None
        if best is None or best.step == state.step:
            return state
        return self.checkpoints.load(best.key, self.device)[0]


def progress_of(step: TrainStep, eta_seconds: float | None) -> TrainProgress:
    return TrainProgress(
        step=step.step,
        steps=step.steps,
        images_seen=step.images_seen,
        loss=round(step.loss, 6),
        learning_rate=step.learning_rate,
        images_per_second=round(step.images_per_second, 1),
        progress=round(step.progress, 4),
        eta_seconds=None if eta_seconds is None else round(eta_seconds, 1),
    )


def _card(state: TrainState, first: FirstWeights | None) -> ModelCard:
    return replace(
        ModelCard.of(state.model.config),
        fit=state.config.fit,
        preset=state.config.preset,
        steps=state.step,
        images_seen=state.images_seen,
        seconds=round(state.elapsed(), 1),
        base_model=first.model if first else None,
        base_digest=first.digest if first else None,
    )


def _log_progress(step: TrainStep, eta_seconds: float | None) -> None:
    log.info(
        "training",
        step=step.step,
        steps=step.steps,
        loss=round(step.loss, 4),
        images_per_second=round(step.images_per_second),
        seconds_left=None if eta_seconds is None else round(eta_seconds),
    )


class TrainHelper(TrainJob):
    """Another process at the same training, which computes its share and writes nothing. It leaves
    when the first one does."""

    in_charge = False

    def work(self) -> bool:
        dataset = self._dataset()
        for _ in train(self._begin(dataset), dataset, self.group):
            pass
        self.group.leave()
        return True


if __name__ == "__main__":
    rank = int(os.environ.get("RANK", "0"))
    if rank:
        sys.argv[3] += f"/rank-{rank}"  # a folder of its own inside that of the first process
    main(TrainHelper if rank else TrainJob)
