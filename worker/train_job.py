"""The trainer: `python -m worker.train_job JOB FENCE`.

Drives models.train and keeps what it makes: checkpoints under attempt-<fence>/ with the record's
pointer flipped last, sample grids, the metrics so far within each checkpoint, the finished model.
"""

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import structlog
import torch

from models.checkpoint import load_checkpoint, save_checkpoint
from models.data import Dataset, open_dataset, prepare
from models.folder import save_model, weights_digest
from models.generate import sample_images, to_float
from models.images import encode_image, image_grid
from models.metrics import denoising_error
from models.recipe import TrainConfig
from models.train import Split, TrainState, TrainStep, train
from store import jobs
from store.datasets import get_dataset
from store.errors import LostLease
from store.models import ModelRecord
from worker.job_process import EXIT_STOPPED, JobProcess, main

CHECKPOINT_SECONDS = 60.0  # at least this often, whatever checkpoint_every says
KEEP_CHECKPOINTS = 2
LOG_EVERY = 10  # optimiser steps per line of metrics
TAIL_SECONDS = 5.0  # how often the newest lines are put where readers find them
SAMPLES = 16
SAMPLE_STEPS = 20
HELD_OUT_IMAGES = 128

log = structlog.get_logger("trainer")


class TrainJob(JobProcess):
    def __init__(self, *attempt: Any) -> None:
        super().__init__(*attempt)
        self.prefix = f"jobs/{self.job_id}/attempt-{self.fence}"
        self.metrics: list[str] = []
        self.evaluations: list[str] = []
        self.latest: TrainStep | None = None

    def work(self) -> bool:
        state, dataset = self._prepare()
        with self._reporting():
            if not self._train(state, dataset):
                return False
        self._finish(state, dataset)
        return True

    # Data and state ---------------------------------------------------------------------------

    def _prepare(self) -> tuple[TrainState, Dataset]:
        job = jobs.get_job(self.database, self.job_id)
        config = TrainConfig.from_dict(job.config)
        assert job.dataset is not None
        dataset = self._dataset(job.dataset, config)
        if not job.checkpoint_key:
            return TrainState.create(config, dataset, self.device), dataset
        folder = self.scratch / "resume"
        self.artifacts.download_folder(job.checkpoint_key, folder)
        self.metrics = _lines(folder / "metrics.jsonl")
        self.evaluations = _lines(folder / "evaluations.jsonl")
        state = load_checkpoint(folder, self.device)
        log.info("resumed", step=state.step)
        return state, dataset

    def _dataset(self, name: str, config: TrainConfig) -> Dataset:
        """The images at the run's size, made once per host and shared by its jobs."""
        record = get_dataset(self.database, name)
        cache = self.settings.locations.data_dir / "cache" / record.digest
        cache.mkdir(parents=True, exist_ok=True)
        height, width = config.image_size
        folder = cache / f"{height}x{width}x{config.channels}"
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                archive = self.scratch / "archive"
                self.artifacts.download(record.artifact_key, archive)
                prepare(archive, folder, config.image_size, config.channels)
                archive.unlink()
        return open_dataset(folder)

    # Training ---------------------------------------------------------------------------------

    def _train(self, state: TrainState, dataset: Dataset) -> bool:
        window: list[float] = []
        saved_step, saved_at = state.step, time.monotonic()
        for step in train(state, dataset):
            self.latest = step
            window.append(step.loss)
            if step.step == 1 or step.step % LOG_EVERY == 0:
                self._log_step(step, sum(window) / len(window))
                window.clear()
            due = step.step % state.config.checkpoint_every == 0
            if due or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                self._evaluate(state, dataset)
                self._checkpoint(state)
                saved_step, saved_at = state.step, time.monotonic()
            if self.stop.is_set():
                if state.step > saved_step:
                    self._checkpoint(state)
                log.info("stopped", step=state.step)
                return False
        return True

    def _log_step(self, step: TrainStep, mean_loss: float) -> None:
        line = {
            "step": step.step,
            "loss": round(mean_loss, 6),
            "learning_rate": step.learning_rate,
            "images_seen": step.images_seen,
            "images_per_second": round(step.images_per_second, 1),
        }
        self.metrics.append(json.dumps(line))

    def _checkpoint(self, state: TrainState) -> None:
        """Everything under a key of its own first, the record's pointer last."""
        key = f"{self.prefix}/checkpoint-{state.step:08}"
        folder = self.scratch / f"checkpoint-{state.step}"
        save_checkpoint(state, folder)
        (folder / "metrics.jsonl").write_text("\n".join(self.metrics))
        (folder / "evaluations.jsonl").write_text("\n".join(self.evaluations))
        self.artifacts.upload_folder(folder, key)
        shutil.rmtree(folder)
        jobs.record_checkpoint(self.database, self.job_id, self.fence, key, state.step)
        self._prune(key)
        log.info("checkpoint", step=state.step)

    def _prune(self, newest: str) -> None:
        folders = {
            PurePosixPath(key).parent
            for key in self.artifacts.keys(f"jobs/{self.job_id}")
            if PurePosixPath(key).parent.name.startswith("checkpoint-")
        }
        by_age = sorted(folders, key=lambda folder: int(folder.name.removeprefix("checkpoint-")))
        for folder in by_age[:-KEEP_CHECKPOINTS]:
            if str(folder) != newest:
                self.artifacts.delete_prefix(str(folder))

    def _evaluate(self, state: TrainState, dataset: Dataset) -> None:
        """The error per noise level on held-out images, and a grid of samples, from the averaged
        weights with the job's seed."""
        model, config = state.ema_model(), state.config
        held_out = Split.of(dataset, config).held_out[:HELD_OUT_IMAGES]
        if len(held_out):
            device = model.device
            images = to_float(dataset.images[held_out.numpy()]).to(device)
            labels = torch.from_numpy(dataset.labels[held_out.numpy()]).to(device)
            errors = denoising_error(
                model, images, labels if config.class_names else None, config.seed
            )
            levels = [asdict(error) for error in errors]
            self.evaluations.append(json.dumps({"step": state.step, "levels": levels}))
        classes = len(config.class_names)
        count = min(SAMPLES, 2 * classes) if classes else SAMPLES
        labels_wanted = [i % classes for i in range(count)] if classes else None
        samples = sample_images(
            model,
            num_images=count,
            num_inference_steps=min(SAMPLE_STEPS, config.schedule.num_train_timesteps),
            seed=config.seed,
            labels=labels_wanted,
        )
        grid = encode_image(image_grid(samples, padding=1), "png")
        self.artifacts.put_bytes(f"jobs/{self.job_id}/samples/{state.step:08}.png", grid)

    # Reports ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        done = threading.Event()
        thread = threading.Thread(target=self._report, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _report(self, done: threading.Event) -> None:
        """Once a second the progress, now and then the newest metrics and a line to the console."""
        reported, said = 0, time.monotonic()
        while not done.wait(1.0):
            step = self.latest
            if step is None or step.step == reported:
                continue
            reported = step.step
            try:
                jobs.record_progress(self.database, self.job_id, self.fence, progress_of(step))
                if time.monotonic() - said > TAIL_SECONDS:
                    said = time.monotonic()
                    self._publish_metrics()
                    _say(step)
            except LostLease:
                os._exit(EXIT_STOPPED)
            except Exception:
                log.exception("progress could not be recorded")

    def _publish_metrics(self) -> None:
        tail = "\n".join(list(self.metrics))
        self.artifacts.put_bytes(f"{self.prefix}/metrics.jsonl", tail.encode())

    def _finish(self, state: TrainState, dataset: Dataset) -> None:
        self._evaluate(state, dataset)
        self._publish_metrics()
        self._checkpoint(state)
        job = jobs.get_job(self.database, self.job_id)
        model, folder = state.ema_model(), self.scratch / "model"
        details = {
            "image_size": list(state.config.image_size),
            "channels": state.config.channels,
            "class_names": list(state.config.class_names),
            "schedule": asdict(state.config.schedule),
            "prediction_type": state.config.prediction_type,
            "preset": state.config.preset,
            "num_parameters": sum(p.numel() for p in model.net.parameters()),
            "steps": state.step,
            "images_seen": state.images_seen,
            "seconds": round(state.elapsed(), 1),
        }
        save_model(model, folder, {**details, "dataset": job.dataset, "job": self.job_id})
        digest = weights_digest(folder)
        prefix = f"models/{job.model_name}/{self.job_id}"
        self.artifacts.upload_folder(folder, prefix)
        record = ModelRecord(
            name=job.model_name,
            digest=digest,
            details=details,
            job_id=self.job_id,
            dataset=job.dataset,
            artifact_prefix=prefix,
            num_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        progress = progress_of(self.latest) if self.latest else job.progress
        progress = {**progress, "progress": 1.0, "eta_seconds": 0.0}
        jobs.succeed_with_model(self.database, self.job_id, self.fence, record, progress)
        log.info("model made", model=job.model_name, steps=state.step)


def progress_of(step: TrainStep) -> dict[str, float | int | None]:
    return {
        "step": step.step,
        "steps": step.steps,
        "images_seen": step.images_seen,
        "loss": round(step.loss, 6),
        "learning_rate": step.learning_rate,
        "images_per_second": round(step.images_per_second, 1),
        "progress": round(step.progress, 4),
        "eta_seconds": None if step.eta_seconds is None else round(step.eta_seconds, 1),
    }


def _say(step: TrainStep) -> None:
    log.info(
        "training",
        step=step.step,
        steps=step.steps,
        loss=round(step.loss, 4),
        images_per_second=round(step.images_per_second),
        seconds_left=None if step.eta_seconds is None else round(step.eta_seconds),
    )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main(TrainJob)
