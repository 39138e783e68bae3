"""`python -m worker.import_job JOB FENCE SCRATCH`: fetch an archive of images, or objects that
become one, and make it a dataset as if it had been uploaded.

An attempt after a lost one begins anew. Within an attempt, a download that breaks off goes on.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from host.loading import loading

with loading():
    import structlog

    from host.tracing import span
    from models.images.formats import Frames, Reading, ValueRange
    from store.jobs import claims, requests
    from store.jobs.configs import ImportConfig
    from store.jobs.progress import ImportProgress
    from store.urls import S3
    from worker.dataset_archives import store_archive
    from worker.imports.bucket import fetch_from_bucket
    from worker.imports.download import Download
    from worker.job_process import JobProcess, Stopped, main
    from worker.public_hosts import anywhere, is_public

REPORT_SECONDS = 1.0  # between two writes of the progress to the record, within a stage

log = structlog.get_logger("import")


class ImportJob(JobProcess):
    def work(self) -> bool:
        job = requests.get_job(self.database, self.job_id)
        config = ImportConfig.from_dict(job.config)
        self._progress, self._reported_at = ImportProgress(stage="downloading"), 0.0
        archive = self.scratch / "archive"
        try:
            with span("download"):
                self._fetch(config, archive)
            self._report(stage="inspecting", progress=0.0)
            record, is_new = store_archive(
                self.database.for_owner(job.made_by, self.settings.quotas),
                self.artifacts,
                config.name,
                archive,
                labels=config.labels,
                reading=Reading(cast(Frames, config.frames), cast(ValueRange, config.range)),
                max_pixels=config.max_pixels,
                counted=lambda num_images: self._note(num_images=num_images),
            )
        except Stopped:
            log.info("stopped")
            return False
        log.info("dataset stored", dataset=record.name, images=record.num_images, new=is_new)
        self.publish_log()
        done = replace(self._progress, stage="done", progress=1.0, num_images=record.num_images)
        claims.succeed(self.database, self.job_id, self.fence, done, dataset=record.name)
        return True

    def _fetch(self, config: ImportConfig, archive: Path) -> None:
        """Download the archive. Raises JobFailed and Stopped."""
        if config.url.startswith(S3):
            skipped = fetch_from_bucket(config.url, archive, config.max_bytes, self._received)
            self._note(num_skipped=skipped)
        else:
            allows = anywhere if self.settings.import_allow_private else is_public
            download = Download(archive, config.max_bytes, self._received, self._pause, allows)
            download.fetch(config.url)

    def _received(self, num_bytes: int, total_bytes: int | None) -> None:
        share = round(num_bytes / total_bytes, 4) if total_bytes else 0.0
        self._note(num_bytes=num_bytes, total_bytes=total_bytes, progress=share)

    def _note(self, **values: Any) -> None:
        """Note how far the job is, and write it into the record now and then. Raises Stopped."""
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            self._report(**values)
        else:
            self._progress = replace(self._progress, **values)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def _report(self, **values: Any) -> None:
        self._progress = replace(self._progress, **values)
        self._reported_at = time.monotonic()
        claims.record_progress(self.database, self.job_id, self.fence, self._progress)


if __name__ == "__main__":
    main(ImportJob)
