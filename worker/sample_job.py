"""`python -m worker.sample_job JOB FENCE SCRATCH`: make many images from a model, with the engine
that also serves POST /sample.

Image i is a function of the request and of i, so that an attempt continues where the one before it
ended. Each image can be read as soon as it is made; a zip of all of them comes at the end.
"""

import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

from host.loading import loading

with loading():
    import structlog

    from models.engine.alone import engine_steps
    from models.engine.orders import Event, Made, Started
    from models.images.files import encode_image
    from models.nets.precision import PrecisionChoice, ranges_of
    from models.pipeline.engine_model import load_engine_model
    from models.runtime.net import EngineModel
    from models.sampling.request import SampleRequest, plan_for
    from store.jobs import claims, requests
    from store.jobs.configs import SampleJobConfig
    from store.jobs.progress import SampleProgress
    from store.jobs.sample_images import archive_key, image_key
    from worker.job_process import JobProcess, main

KEEP_SECONDS = 1.0  # between two writes of the progress to the record

log = structlog.get_logger("sampler")


class SampleJob(JobProcess):
    def work(self) -> bool:
        job = requests.get_job(self.database, self.job_id)
        config = SampleJobConfig.from_dict(job.config)
        precision = job.progress.get("precision")  # of an attempt before this one
        counter = ImageCounter(job.checkpoint_step or 0, config.num_images, precision)
        if counter.images < config.num_images:
            model = self.fetch_model(config.prefix, partial(self._load, config.precision))
            steps = engine_steps(
                model,
                plan_for(model.config, SampleRequest.from_dict(config.request)),
                deterministic=config.deterministic,
                precision=cast(PrecisionChoice, precision or config.precision),
                ranges=ranges_of(config.ranges),
                first_image=counter.images,
            )
            if not self._make_images(steps, counter):
                return False
        self._zip(config.num_images)
        claims.succeed(self.database, self.job_id, self.fence, counter.progress())
        log.info("images made", images=config.num_images)
        return True

    def _load(self, precision: str, folder: Path, device: str) -> EngineModel:
        serving = "cpu" if precision == "int8" else device
        return load_engine_model(folder, serving, self.settings.locations.data_dir / "cache")

    def _make_images(self, steps: Iterator[list[Event]], counter: "ImageCounter") -> bool:
        """Make the rest of the images; False if the job was stopped, with its progress written."""
        kept_at = time.monotonic()
        for events in steps:
            for event in events:
                if isinstance(event, Started):
                    counter.precision = event.precision
                if isinstance(event, Made):
                    content = encode_image(event.pixels, "png")
                    self.artifacts.put_bytes(image_key(self.job_id, event.image), content)
                    counter.add(event.image)
            if self.stop.is_set() or time.monotonic() - kept_at > KEEP_SECONDS:
                self._write_progress(counter)
                kept_at = time.monotonic()
            if self.stop.is_set():
                log.info("stopped", images=counter.images)
                return False
        return True

    def _write_progress(self, counter: "ImageCounter") -> None:
        key, images = f"jobs/{self.job_id}/images", counter.images
        claims.record_checkpoint(self.database, self.job_id, self.fence, key, images)
        claims.record_progress(self.database, self.job_id, self.fence, counter.progress())

    def _zip(self, num_images: int) -> None:
        path = self.scratch / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for image in range(num_images):
                content = self.artifacts.get_bytes(image_key(self.job_id, image))
                archive.writestr(zipfile.ZipInfo(f"{image:08}.png"), content)
        self.artifacts.put_file(archive_key(self.job_id), path)


class ImageCounter:
    """A count of the images that are made. They may come in any order: `images` is how many are
    made before the first that is not. `precision` is that of the network, once it has begun."""

    def __init__(self, images: int, num_images: int, precision: str | None) -> None:
        self.images, self.num_images, self.precision = images, num_images, precision
        self._beyond: set[int] = set()
        self._begun, self._made = time.monotonic(), 0

    def add(self, image: int) -> None:
        self._made += 1
        self._beyond.add(image)
        while self.images in self._beyond:
            self._beyond.remove(self.images)
            self.images += 1

    def progress(self) -> SampleProgress:
        made = self.images + len(self._beyond)
        speed = self._made / max(time.monotonic() - self._begun, 1e-6)
        return SampleProgress(
            images=made,
            num_images=self.num_images,
            precision=self.precision,
            images_per_second=round(speed, 2),
            progress=round(made / self.num_images, 4),
            eta_seconds=round((self.num_images - made) / speed, 1) if speed else None,
        )


if __name__ == "__main__":
    main(SampleJob)
