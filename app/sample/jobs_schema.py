"""Jobs that make images, as callers see them."""

from pydantic import BaseModel, Field

from app.jobs.schema import described
from app.sample.schema import SampleUsed
from client.answers import JobState
from store.jobs.kinds import JOB_KINDS
from store.jobs.record import Job


class SampleProgress(BaseModel):
    images: int = Field(description="made so far")
    num_images: int
    images_per_second: float | None = None
    progress: float = Field(description="0..1")
    eta_seconds: float | None = Field(default=None, description="null until it is known")


class SampleJobAnswer(JobState):
    model: str
    used: SampleUsed
    progress: SampleProgress

    @classmethod
    def of(cls, job: Job) -> "SampleJobAnswer":
        address, num_images = (
            JOB_KINDS["sample"].address(job.id),
            job.config["request"]["num_images"],
        )
        parts = ("events", "images", "cancel")
        links = {"self": address, **{part: f"{address}/{part}" for part in parts}}
        if job.status == "succeeded":
            links["archive"] = f"{address}/archive"
        nothing = {"images": 0, "num_images": num_images, "progress": 0.0}
        return described(
            cls,
            job,
            model=job.model_name,
            used=job.config["used"],
            progress=job.progress or nothing,
            links=links,
        )


class MadeImage(BaseModel):
    index: int
    href: str


class MadeImages(BaseModel):
    """In order; the last index is the next page's `after`."""

    items: list[MadeImage]
    has_more: bool = Field(description="among those that are made by now")
