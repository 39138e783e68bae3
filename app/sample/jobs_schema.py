"""Jobs that make images, as the API shows them."""

from pydantic import BaseModel, Field

from app.http.root_path import link
from app.jobs.schema import described
from app.sample.schema import SampleUsed
from client.answers import JobState
from store.database import Database
from store.jobs import progress as progress_records
from store.jobs.configs import SampleJobConfig
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
    def of(cls, database: Database, job: Job) -> "SampleJobAnswer":
        address = link(JOB_KINDS["sample"].address(job.id))
        config = SampleJobConfig.from_dict(job.config)
        parts = ("events", "images", "cancel")
        links = {"self": address, **{part: f"{address}/{part}" for part in parts}}
        if job.status == "succeeded":
            links["archive"] = f"{address}/archive"
        progress = progress_records.SampleProgress.from_dict(
            {"num_images": config.num_images, **job.progress}
        )
        return described(
            cls,
            database,
            job,
            model=job.model_name,
            used=config.used | ({"precision": progress.precision} if progress.precision else {}),
            progress=progress.to_dict(),
            links=links,
        )


class MadeImage(BaseModel):
    index: int
    href: str


class MadeImages(BaseModel):
    """In order; the last index is the next page's `after`."""

    items: list[MadeImage]
    has_more: bool = Field(description="among those that are made by now")
