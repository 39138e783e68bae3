"""`python -m worker.sample_job JOB FENCE SCRATCH`: make many images from a model, with the engine
that also serves POST /sample.

Image i is a function of the request and of i, so that an attempt continues where the one before it
ended, and workers that are free help (worker.image_parts). Each image can be read as soon as it is
made; a zip of all of them comes at the end.
"""

import time
import zipfile

from host.loading import loading

with loading():
    import structlog

    from store.jobs import claims, parts, requests
    from store.jobs.configs import SampleJobConfig
    from store.jobs.progress import SampleProgress
    from store.jobs.sample_images import archive_key, image_key, images_prefix
    from worker.image_parts import SharedOrder, load_model
    from worker.job_process import JobProcess, Stopped, main

KEEP_SECONDS = 1.0  # between two writes of the progress to the record

log = structlog.get_logger("sampler")


class SampleJob(JobProcess):
    def work(self) -> bool:
        job = requests.get_job(self.database, self.job_id)
        config = SampleJobConfig.from_dict(job.config)
        count = ImageCount(self, config)
        if count.made() < config.num_images:
            order = SharedOrder(self, config, load_model(self, config))
            count.precision = order.config.precision
            try:
                for _ in order.images():
                    if time.monotonic() - count.told_at > KEEP_SECONDS:
                        self._write_progress(count.progress())
            except Stopped:
                self._write_progress(count.progress())
                log.info("stopped", images=count.made())
                return False
        self._zip(config.num_images)
        claims.succeed(self.database, self.job_id, self.fence, count.progress())
        log.info("images made", images=config.num_images)
        return True

    def _write_progress(self, progress: SampleProgress) -> None:
        made = images_prefix(self.job_id), progress.images
        claims.record_checkpoint(self.database, self.job_id, self.fence, *made)
        claims.record_progress(self.database, self.job_id, self.fence, progress)

    def _zip(self, num_images: int) -> None:
        path = self.scratch / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for image in range(num_images):
                content = self.artifacts.get_bytes(image_key(self.job_id, image))
                archive.writestr(zipfile.ZipInfo(f"{image:08}.png"), content)
        self.artifacts.put_file(archive_key(self.job_id), path)


class ImageCount:
    """How many images of the job are made, by all processes together, and how fast in this attempt.
    `precision` is that of the network, once it is known."""

    def __init__(self, process: JobProcess, config: SampleJobConfig) -> None:
        self._process, self._num_images = process, config.num_images
        order = parts.get_order(process.database, process.job_id)  # of an earlier attempt
        self.precision = SampleJobConfig.from_dict(order.config).precision if order else None
        self._before, self._begun = self.made(), time.monotonic()
        self.told_at = self._begun

    def made(self) -> int:
        return parts.num_made(self._process.database, self._process.job_id)

    def progress(self) -> SampleProgress:
        self.told_at = time.monotonic()
        made, num_images = self.made(), self._num_images
        speed = (made - self._before) / max(self.told_at - self._begun, 1e-6)
        return SampleProgress(
            images=made,
            num_images=num_images,
            precision=self.precision,
            images_per_second=round(speed, 2),
            progress=round(made / num_images, 4),
            eta_seconds=round((num_images - made) / speed, 1) if speed else None,
        )


if __name__ == "__main__":
    main(SampleJob)
