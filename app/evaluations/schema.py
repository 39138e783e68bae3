"""Evaluations as callers see them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.body import JsonBody
from app.http.names import Name
from app.http.root_path import link
from app.jobs.schema import described
from client.answers import JobState
from models.diffusion.noise import MAX_SEED
from models.evaluation.config import MAX_IMAGES, MIN_IMAGES
from models.nets.precision import PrecisionChoice
from models.sampling.samplers import SamplerName
from store.database import Database
from store.datasets import MAX_VERSION
from store.jobs import progress as progress_records
from store.jobs.configs import EvaluateConfig
from store.jobs.kinds import JOB_KINDS
from store.jobs.record import Job

Features = Literal["auto", "classifier", "random", "pixels", "vision_transformer"]


class EvaluationRequest(JsonBody):
    """`model` is enough where the model was trained here."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "digits-1"}]})

    model: Name = Field(description="GET /models lists them")
    dataset: Name | None = Field(
        default=None,
        description="the real images to compare with; where left out those that it learned from",
    )
    dataset_version: int | None = Field(
        default=None,
        ge=1,
        le=MAX_VERSION,
        description="a version of the dataset; where left out the one that the model learned from, "
        "or the newest",
    )
    num_images: int | None = Field(
        default=None,
        ge=MIN_IMAGES,
        le=MAX_IMAGES,
        description="to make and to compare; 1000 where left out, 200 from 64 pixels up. Distances "
        "of different numbers do not compare.",
    )
    sampler: SamplerName | None = Field(default=None, description="as for POST /sample")
    num_inference_steps: int | None = Field(
        default=None, ge=1, le=1000, description="as for POST /sample"
    )
    guidance_scale: float = Field(default=1.0, ge=0, le=20, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    precision: PrecisionChoice | None = Field(
        default=None,
        description="of the network where it makes the images, as for POST /sample; the model "
        "keeps its latest scores in each. int8 is calibrated first, on images that the model "
        "makes, and computed on the CPU. The likelihood is always computed in float32.",
    )
    features: Features = Field(
        default="auto",
        description="what images are compared by. `classifier`: a small net that learns the "
        "dataset's classes first; `random`: fixed random convolutions; `pixels`; "
        "`vision_transformer`: DINOv2 from the folder that the service is given. `auto` is the "
        "classifier where there are classes, else random.",
    )
    likelihood_images: int = Field(
        default=64,
        ge=0,
        le=MAX_IMAGES,
        description="held-out images whose bits per dimension are found; 0 for none",
    )


class EvaluationProgress(BaseModel):
    stage: str = Field(
        description="queued, calibrating (int8), features, sampling, comparing, neighbours, "
        "likelihood, done"
    )
    progress: float = Field(description="0..1, of the stage")


class EvaluationAnswer(JobState):
    model: str
    dataset: str
    dataset_version: int | None
    dataset_digest: str | None
    config: dict[str, Any] = Field(
        description="what is used. Its `precision` is the one asked for until the evaluation is "
        "done, and then the one that the images were made in; `ranges` are those of the values in "
        "int8."
    )
    progress: EvaluationProgress
    result: dict[str, Any] | None = Field(
        description="`made` and `real`: frechet, kernel, precision and recall by the features, and "
        "pixel_frechet, of the model's images and, as yardsticks, of real ones; `noise`: the same "
        "of pure noise; `memorisation`: "
        "the median distance to the nearest training image; `class_agreement`; `likelihood`: bits "
        "per dimension of held-out images"
    )

    @classmethod
    def of(cls, database: Database, job: Job) -> "EvaluationAnswer":
        address = link(JOB_KINDS["evaluate"].address(job.id))
        links = {
            "self": address,
            "events": f"{address}/events",
            "cancel": f"{address}/cancel",
            "model": link(f"/models/{job.model_name}"),
        }
        if job.status == "succeeded":
            links["neighbours"] = f"{address}/neighbours"
        progress = progress_records.EvaluationProgress.from_dict(job.progress)
        asked = EvaluateConfig.from_dict(job.config).evaluation
        return described(
            cls,
            database,
            job,
            model=job.model_name,
            config=progress.result["config"] if progress.result else asked,
            progress={"stage": progress.stage, "progress": progress.progress},
            result=progress.result,
            links=links,
        )
