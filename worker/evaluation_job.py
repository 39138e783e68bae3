"""`python -m worker.evaluation_job JOB FENCE SCRATCH`: how good a model is.

Begins anew where an attempt before it was lost: it takes minutes, and all of it is a function of
the model, the data and the request.
"""

import time
from collections.abc import Mapping
from typing import Any

from host.loading import loading

with loading():
    import structlog

    from models.diffusion.model import DiffusionModel
    from models.evaluation.evaluate import EvaluationConfig, EvaluationStep, evaluate
    from models.images.dataset import Dataset
    from models.images.files import encode_image
    from models.sampling.generate import Stopped
    from models.training.batches import Split
    from store.datasets import get_dataset
    from store.jobs import claims, requests
    from store.jobs.files import neighbours_key
    from worker.dataset_cache import cached_dataset
    from worker.job_process import JobProcess, main

SAY_SECONDS = 1.0  # how often the record hears of the progress

log = structlog.get_logger("evaluation")


class EvaluationJob(JobProcess):
    def work(self) -> bool:
        job = requests.get_job(self.database, self.job_id)
        model = self.fetch_model(job.config["prefix"])
        assert job.dataset is not None
        dataset = self._dataset(job.dataset, model)
        try:
            last = self._walk(model, dataset, job.config)
        except Stopped:
            log.info("stopped")
            return False
        assert last.result is not None
        assert last.neighbours_picture is not None
        picture = encode_image(last.neighbours_picture, "png")
        self.artifacts.put_bytes(neighbours_key(self.job_id), picture)
        result = last.result.to_dict()
        log.info("evaluated", model=job.model_name, frechet=round(last.result.made.frechet, 4))
        self.publish_log()
        progress = progress_of(last, result)
        claims.succeed_with_scores(self.database, self.job_id, self.fence, progress, result)
        return True

    def _dataset(self, name: str, model: DiffusionModel) -> Dataset:
        return cached_dataset(
            get_dataset(self.database, name),
            model.config.image_size,
            model.config.net.in_channels,
            self.artifacts,
            self.settings.locations.data_dir,
            self.scratch,
        )

    def _walk(
        self, model: DiffusionModel, dataset: Dataset, asked: Mapping[str, Any]
    ) -> EvaluationStep:
        """To the last step, which has the result. Raises Stopped."""
        config = EvaluationConfig.from_dict(asked["evaluation"])
        held_out = None
        if asked["held_out"]:
            held_out = Split.of_count(len(dataset.images), **asked["held_out"]).held_out.numpy()
        stage, said = "", time.monotonic()
        for step in evaluate(model, dataset, held_out, config, self.stop.is_set):
            if step.stage != stage or time.monotonic() - said > SAY_SECONDS:
                stage, said = step.stage, time.monotonic()
                progress = progress_of(step)
                claims.record_progress(self.database, self.job_id, self.fence, progress)
        return step


def progress_of(step: EvaluationStep, result: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "progress": round(step.progress, 4),
        **({"result": dict(result)} if result else {}),
    }


if __name__ == "__main__":
    main(EvaluationJob)
