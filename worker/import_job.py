"""`python -m worker.import_job JOB FENCE SCRATCH`: fetch an archive of images, or objects that
become one, and make it a dataset as if it had been uploaded.

An attempt after a lost one begins anew. Within an attempt, a download that breaks off goes on.
"""

import time
from dataclasses import replace
from typing import Any, cast

from host.loading import loading

with loading():
    import structlog

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
        config = ImportConfig.from_dict(requests.get_job(self.database, self.job_id).config)
        archive = self.scratch / "archive"
        self._progress, self._reported_at = ImportProgress(stage="downloading"), 0.0
        try:
            if config.url.startswith(S3):
                skipped = fetch_from_bucket(config.url, archive, config.max_bytes, self._received)
                self._progress = replace(self._progress, num_skipped=skipped)
            else:
                allows = anywhere if self.settings.import_allow_private else is_public
                Download(archive, config.max_bytes, self._received, self._pause, allows).fetch(
                    config.url
                )
        except Stopped:
            log.info("stopped")
            return False
        self._report(stage="inspecting", progress=0.0)
        record, is_new = store_archive(
            self.database,
            self.artifacts,
            config.name,
            archive,
            labels=config.labels,
            reading=Reading(cast(Frames, config.frames), cast(ValueRange, config.range)),
            max_pixels=config.max_pixels,
        )
        log.info("dataset stored", dataset=record.name, images=record.num_images, new=is_new)
        self.publish_log()
        done = replace(self._progress, stage="done", progress=1.0)
        claims.succeed(self.database, self.job_id, self.fence, done, dataset=record.name)
        return True

    def _received(self, num_bytes: int, total_bytes: int | None) -> None:
        """Note how far the download is. Raises Stopped."""
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            share = round(num_bytes / total_bytes, 4) if total_bytes else 0.0
            self._report(num_bytes=num_bytes, total_bytes=total_bytes, progress=share)
        else:
            self._progress = replace(self._progress, num_bytes=num_bytes, total_bytes=total_bytes)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def _report(self, **values: Any) -> None:
        self._progress = replace(self._progress, **values)
        self._reported_at = time.monotonic()
        claims.record_progress(self.database, self.job_id, self.fence, self._progress)


if __name__ == "__main__":
    main(ImportJob)
