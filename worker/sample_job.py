"""`python -m worker.sample_job JOB FENCE SCRATCH`: many images from a model, made by the same
engine as those of POST /sample.

Image i is a function of the request and of i, so that an attempt goes on where the one before it
ended. Each image can be read as soon as it is made; a zip of all of them comes at the end.
"""

import time
import zipfile
from collections.abc import Callable
from typing import Any

from host.loading import loading

with loading():
    import structlog

    from models.engine.engine import Engine, Made, NotMade, Order
    from models.fields import Invalid
    from models.images.files import encode_image
    from models.sampling.plan import SampleRequest
    from store.jobs import claims, requests
    from store.jobs.sample_images import archive_key, image_key
    from worker.job_process import JobProcess, main

KEEP_SECONDS = 1.0  # how often the record hears of what is made

_FAILURES: dict[str, Callable[[str], Exception]] = {
    "invalid": Invalid.because,
    "out_of_memory": MemoryError,
    "failed": RuntimeError,
}

log = structlog.get_logger("sampler")


class SampleJob(JobProcess):
    def work(self) -> bool:
        job = requests.get_job(self.database, self.job_id)
        request = SampleRequest.from_dict(job.config["request"])
        progress = Progress(job.checkpoint_step or 0, request.num_images)
        if progress.images < request.num_images:
            order = Order(
                self.job_id,
                job.config["digest"],
                self.fetch_model(job.config["prefix"]),
                request,
                deterministic=job.config["deterministic"],
                precision=job.config["precision"],
                first_image=progress.images,
            )
            if not self._make(order, progress):
                return False
        self._zip(request.num_images)
        claims.succeed(self.database, self.job_id, self.fence, progress.to_dict())
        log.info("images made", images=request.num_images)
        return True

    def _make(self, order: Order, progress: "Progress") -> bool:
        """True: all are made. False: stopped, and what is made is kept."""
        engine, kept_at = Engine(), time.monotonic()
        engine.submit(order)
        while progress.images < progress.num_images:
            for event in engine.step():
                if isinstance(event, NotMade):
                    raise _FAILURES[event.reason](event.message)
                if isinstance(event, Made):
                    content = encode_image(event.pixels, "png")
                    self.artifacts.put_bytes(image_key(self.job_id, event.image), content)
                    progress.add(event.image)
            if self.stop.is_set() or time.monotonic() - kept_at > KEEP_SECONDS:
                self._keep(progress)
                kept_at = time.monotonic()
            if self.stop.is_set():
                log.info("stopped", images=progress.images)
                return False
        return True

    def _keep(self, progress: "Progress") -> None:
        key, images = f"jobs/{self.job_id}/images", progress.images
        claims.record_checkpoint(self.database, self.job_id, self.fence, key, images)
        claims.record_progress(self.database, self.job_id, self.fence, progress.to_dict())

    def _zip(self, num_images: int) -> None:
        path = self.scratch / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for image in range(num_images):
                content = self.artifacts.get_bytes(image_key(self.job_id, image))
                archive.writestr(zipfile.ZipInfo(f"{image:08}.png"), content)
        self.artifacts.put_file(archive_key(self.job_id), path)


class Progress:
    """`images` is how many are made before the first that is not."""

    def __init__(self, images: int, num_images: int) -> None:
        self.images, self.num_images = images, num_images
        self._beyond: set[int] = set()
        self._begun, self._made = time.monotonic(), 0

    def add(self, image: int) -> None:
        self._made += 1
        self._beyond.add(image)
        while self.images in self._beyond:
            self._beyond.remove(self.images)
            self.images += 1

    def to_dict(self) -> dict[str, Any]:
        made = self.images + len(self._beyond)
        speed = self._made / max(time.monotonic() - self._begun, 1e-6)
        return {
            "images": made,
            "num_images": self.num_images,
            "images_per_second": round(speed, 2),
            "progress": round(made / self.num_images, 4),
            "eta_seconds": round((self.num_images - made) / speed, 1) if speed else None,
        }


if __name__ == "__main__":
    main(SampleJob)
