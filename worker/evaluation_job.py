"""`python -m worker.evaluation_job JOB FENCE SCRATCH`: measure how good a model is.

An attempt after a lost one begins anew, but for images that it made with the help of other workers:
an evaluation takes minutes, and all of it is a function of the model, the data and the request.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import cast

from host.loading import loading

with loading():
    import structlog

    from models.arrays import UInt8
    from models.diffusion.model import DiffusionModel
    from models.evaluation.config import EvaluationConfig
    from models.evaluation.evaluate import EvaluationStep, evaluate
    from models.images.dataset import Dataset
    from models.images.files import decode_image, encode_image
    from models.images.formats import Fit
    from models.pipeline.engine_model import load_engine_model
    from models.pipeline.torch_folder import load_model
    from models.runtime.net import EngineModel
    from models.sampling.generate import Stopped as SamplingStopped
    from models.sampling.request import SampleRequest
    from models.training.batches import Split
    from store.datasets import DatasetVersion, get_version
    from store.jobs import claims, parts, requests
    from store.jobs.configs import EvaluateConfig, SampleJobConfig
    from store.jobs.files import neighbours_key
    from store.jobs.progress import EvaluationProgress
    from store.jobs.sample_images import image_key, images_prefix
    from worker.dataset_cache import cached_dataset
    from worker.image_parts import SharedOrder, num_helpers
    from worker.job_process import JobProcess, Stopped, main

REPORT_SECONDS = 1.0  # between two writes of the progress to the record, within a stage

log = structlog.get_logger("evaluation")


class EvaluationJob(JobProcess):
    def work(self) -> bool:
        job = requests.get_job(self.database, self.job_id)
        config = EvaluateConfig.from_dict(job.config)
        precision = config.evaluation.get("precision")
        model, served = self.fetch_model(
            config.prefix, config.digest, partial(self._load, precision)
        )
        assert job.dataset is not None
        version = get_version(self.database, job.dataset, job.dataset_digest)
        dataset = self._dataset(version, model, cast(Fit, config.fit))
        try:
            last = self._evaluate(model, served, dataset, config)
        except (Stopped, SamplingStopped):
            log.info("stopped")
            return False
        assert last.result is not None
        assert last.neighbours_picture is not None
        picture = encode_image(last.neighbours_picture, "png")
        self.artifacts.put_bytes(neighbours_key(self.job_id), picture)
        result = last.result.to_dict()
        log.info("evaluated", model=job.model_name, frechet=round(last.result.made.frechet, 4))
        self.publish_log()
        progress = replace(progress_of(last), result=result)
        used = last.result.config.precision
        claims.succeed_with_scores(self.database, self.job_id, self.fence, progress, used)
        return True

    def _load(
        self, precision: str | None, folder: Path, device: str
    ) -> tuple[DiffusionModel, EngineModel]:
        cache = self.settings.locations.data_dir / "cache"
        serving = "cpu" if precision == "int8" else device
        return load_model(folder, device), load_engine_model(folder, serving, cache)

    def _dataset(self, version: DatasetVersion, model: DiffusionModel, fit: Fit) -> Dataset:
        return cached_dataset(
            version,
            model.config.image_size,
            model.config.net.in_channels,
            fit,
            self.artifacts,
            self.settings.locations.data_dir,
            self.scratch,
        )

    def _evaluate(
        self,
        model: DiffusionModel,
        served: EngineModel,
        dataset: Dataset,
        config: EvaluateConfig,
    ) -> EvaluationStep:
        """Run all steps and return the last, which has the result. Raises Stopped."""
        evaluation = EvaluationConfig.from_dict(config.evaluation)
        unseen = None
        if config.held_out:
            split = Split.of_seed(dataset, **asdict(config.held_out))
            unseen = split.held_out.numpy()
        stage, reported_at = "", time.monotonic()
        make = partial(self._make_images, served, config) if num_helpers(self) else None
        for step in evaluate(model, served, dataset, unseen, evaluation, self.stop.is_set, make):
            if step.stage != stage or time.monotonic() - reported_at > REPORT_SECONDS:
                stage, reported_at = step.stage, time.monotonic()
                progress = progress_of(step)
                claims.record_progress(self.database, self.job_id, self.fence, progress)
        return step

    def _make_images(
        self,
        served: EngineModel,
        config: EvaluateConfig,
        request: SampleRequest,
        evaluation: EvaluationConfig,
    ) -> Iterator[tuple[int, UInt8]]:
        """Make the images together with other workers; yield them. Raises Stopped."""
        order = SharedOrder(
            self,
            SampleJobConfig(
                request=request.to_dict(),
                prefix=config.prefix,
                digest=config.digest,
                precision=evaluation.precision,
                ranges=[list(ends) for ends in evaluation.ranges],
            ),
            served,
        )
        elsewhere = set(range(request.num_images))
        for images in order.images():
            elsewhere -= {image.image for image in images}
            yield from ((image.image, image.pixels) for image in images)
        for image in sorted(elsewhere):
            content = self.artifacts.get_bytes(image_key(self.job_id, image))
            yield image, decode_image(content)
        parts.forget(self.database, self.job_id)
        self.artifacts.delete_prefix(images_prefix(self.job_id))


def progress_of(step: EvaluationStep) -> EvaluationProgress:
    return EvaluationProgress(stage=step.stage, progress=round(step.progress, 4))


if __name__ == "__main__":
    main(EvaluationJob)
