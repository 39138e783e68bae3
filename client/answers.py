"""The answers of the service that the client parses.

The service declares its answers with the same classes, so that each field is defined once. They
need only pydantic.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
FindingKind = Literal[
    "exact-duplicate",
    "near-duplicate",
    "one-colour",
    "blurred",
    "tiny",
    "odd-size",
    "odd-shape",
    "small-class",
]


Visibility = Literal["private", "shared"]
OWNER = "the owner of the key that made it; null if there was none"
VISIBILITY = "`private`: only its owner sees it; `shared`: every key does"

# Datasets and models ------------------------------------------------------------------------------


class Size(BaseModel):
    height: int
    width: int
    count: int


class Rejected(BaseModel):
    name: str
    reason: str


class Reading(BaseModel):
    """How the image files of a dataset are read."""

    frames: Literal["refuse", "first", "all"] = Field(
        description="of animations and of TIFFs of several pages"
    )
    range: Literal["full", "bits", "data"] = Field(
        description="of files of more than 8 bits a value: what becomes black and white"
    )
    levels: tuple[int, int] | None = Field(
        description="the values that become black and white in all of these files; null if each "
        "format decides"
    )


class DatasetAnswer(BaseModel):
    name: str
    version: int = Field(description="the number of this version: 1, 2, ...")
    digest: str = Field(
        description="sha256 of the version: of an upload that of the archive, and of `labels`, "
        "`frames` and `range` where they are not the default; after an edit that of the list of "
        "its images and their classes"
    )
    num_bytes: int = Field(description="of its archives")
    num_images: int
    channels: int = Field(description="1 for greyscale, 3 for RGB")
    classes: dict[str, int] = Field(description="images per class; empty without classes")
    labels: str = Field(
        description="where the classes come from, as the parameter `labels` of an upload names it"
    )
    splits: dict[str, int] = Field(
        description="images per split (train, val, test); empty if all are for training. Those of "
        "val and test are not trained on, and models are measured on them"
    )
    sizes: list[Size] = Field(description="the most common sizes, most frequent first")
    num_rejected: int
    rejected: list[Rejected] = Field(description="the first rejected files, with reasons")
    reading: Reading
    warnings: list[str] = Field(description="what looks odd about the classes and the images")
    owner: str | None = Field(description=OWNER)
    visibility: Visibility = Field(description=VISIBILITY)
    damage: str | None = Field(
        default=None,
        description="when and what was found damaged of its archives, where it is stored",
    )
    created_at: datetime
    links: dict[str, str]


class VersionAnswer(BaseModel):
    """One version of a dataset."""

    number: int
    digest: str
    change: str = Field(description="from the version before, in words")
    num_images: int
    classes: dict[str, int] = Field(description="images per class; empty without classes")
    splits: dict[str, int] = Field(description="images per split; empty if all are for training")
    created_at: datetime
    links: dict[str, str]


class ImageAnswer(BaseModel):
    """One image of a dataset."""

    id: str = Field(description="the same in all versions of the dataset")
    name: str = Field(description="path of its file in the archive that it came in")
    frame: int = Field(description="which picture of that file it is, from 0")
    class_name: str | None = Field(description="null if the dataset has no classes")
    split: Literal["train", "val", "test"]
    height: int
    width: int
    sha256: str = Field(description="of its file, in hexadecimal")
    links: dict[str, str]


class DuplicateGroup(BaseModel):
    """Images that are the same, or look the same."""

    images: list[str] = Field(
        description="ids of the first images; the very first is the best to keep"
    )
    num_images: int
    across_splits: bool = Field(description="some are for training, others measure the model")
    across_classes: bool


class Finding(BaseModel):
    """One kind of images that are worth looking at."""

    kind: FindingKind
    sentence: str = Field(description="what was found, for people")
    num_images: int
    images: list[ImageAnswer] = Field(description="the first of them, the worst first")
    num_groups: int = Field(description="of duplicates; 0 for other kinds")
    groups: list[DuplicateGroup] = Field(
        description="the first groups of duplicates: those across splits, then those across "
        "classes, then the largest"
    )


class DatasetReport(BaseModel):
    """What in a version of a dataset is likely to harm a training."""

    dataset: str
    version: int
    num_images: int
    findings: list[Finding] = Field(description="in the order of kinds; empty if nothing was found")
    complete: bool = Field(
        description="false if so many images are alike that not all pairs were compared"
    )
    links: dict[str, str]


ModelFormat = Literal["diffusers", "onnx"]  # of a download


class ModelOrigin(BaseModel):
    """Where a model comes from; `dataset` and `job_id` beside it say what it learned from, and the
    job that trained it."""

    model_config = ConfigDict(protected_namespaces=())

    kind: Literal["trained", "fine_tuned", "distilled", "uploaded"]
    base_model: str | None = Field(description="the model whose weights it began with")
    base_digest: str | None = Field(description="sha256 of those weights")


class NetworkSize(BaseModel):
    num_parameters: int | None
    float32_bytes: int | None = Field(description="of the parameters in float32")
    flops: int | None = Field(
        description="floating-point operations of one call for one image: two for each "
        "multiplication with its addition, in convolutions and matrix products. null for a model "
        "of an earlier version"
    )


class AuditAnswer(BaseModel):
    """Somebody made, changed, deleted or downloaded something."""

    number: int
    at: datetime
    owner: str | None = Field(description="of the key; null without one")
    key_id: str | None
    action: str = Field(examples=["DELETE /models/{name}"])
    path: str
    made: str | None = Field(description="the address of what was made")
    request_digest: str | None = Field(
        description="of images that were asked for; each carries it in its recipe"
    )
    status: int
    address: str | None = Field(description="from which the request came")
    request_id: str = Field(description="also in the service's own log")


class TrashAnswer(BaseModel):
    id: str
    collection: str = Field(description="where it was: datasets, models, train-jobs, ...")
    name: str = Field(description="in full; of a job or a picture its id")
    num_records: int = Field(
        description="1, or how many pictures were deleted together; `name` is that of the first"
    )
    num_bytes: int = Field(description="that count for the quota of its owner until it is removed")
    deleted_at: datetime
    removed_at: datetime = Field(description="when it will be removed for good, or soon after")
    links: dict[str, str]


class PictureAnswer(BaseModel):
    """A picture in the gallery."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    model: str
    model_digest: str = Field(description="sha256 of the weights that made it")
    class_name: str | None = Field(
        description="null where it has no class or several, or where its model was gone"
    )
    seed: int
    sampler: str
    width: int
    height: int
    media_type: str
    num_bytes: int
    sha256: str = Field(description="of its file, in hexadecimal")
    starred: bool
    notes: str
    tags: list[str]
    owner: str | None = Field(description=OWNER)
    damage: str | None = Field(
        default=None,
        description="when and what was found damaged of its file, where it is stored",
    )
    created_at: datetime = Field(description="when it was kept")
    links: dict[str, str]


class RecipeSettings(BaseModel):
    """How a picture was made."""

    request: dict[str, Any] = Field(
        description="a body of `POST /sample` that makes it again, with all images of its batch; "
        "without what is the default"
    )
    image: int | None = Field(description="which image of the batch it is; null: all of them")
    step: int | None = Field(
        description="of a picture on the way: after which step, from 0; null for one that is done"
    )
    view: Literal["x_t", "x0_hat"] | None = Field(
        description="of such a picture: what the network saw, or predicted"
    )
    not_in_file: list[Literal["init_image", "mask"]] = Field(
        description="files that the request needs, too; a recipe has only their sha256"
    )
    warning: str | None = Field(
        description="why the same images cannot be made now: the model is gone, or another"
    )
    recipe: dict[str, Any] = Field(description="`POST /sample/again` takes it")


class PictureDetails(PictureAnswer):
    settings: RecipeSettings


class KeptPictures(BaseModel):
    items: list[PictureAnswer] = Field(description="a picture for each file, in their order")
    num_new: int = Field(description="the others were kept before")
    num_removed: int = Field(description="old pictures without a star, to make room")


class FacetAnswer(BaseModel):
    name: str
    num_pictures: int


class PictureFacets(BaseModel):
    """What pictures can be searched by, the most frequent first."""

    num_pictures: int
    num_starred: int
    max_pictures: int = Field(
        description="that the gallery keeps; for more the oldest without a star are removed"
    )
    models: list[FacetAnswer]
    classes: list[FacetAnswer]
    tags: list[FacetAnswer]


class ModelAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    name: str
    digest: str = Field(description="sha256 of the weights")
    num_bytes: int
    license: str | None = Field(
        description="of the weights, an SPDX id or other text; null if unknown"
    )
    owner: str | None = Field(description=OWNER)
    visibility: Visibility = Field(description=VISIBILITY)
    origin: ModelOrigin
    network: NetworkSize
    precisions: dict[str, Literal["float32", "bfloat16", "int8"]] | None = Field(
        description="what each `precision` of a request comes to on this service's device, `auto` "
        "among them, and `int8` where it is offered of this model; null while the engine starts"
    )
    int8_refusal: str | None = Field(
        default=None,
        description="why `int8` is not offered of this model; null where it is, and where the "
        "device has none",
    )
    details: dict[str, Any] = Field(
        description="image_size (height, width), channels, class_names, schedule, ...; `scores` "
        "are those of the latest evaluation in each precision"
    )
    dataset: str | None
    dataset_version: int | None = Field(description="the version of it that the model learned from")
    dataset_digest: str | None = Field(
        description="the digest of that version: `GET /datasets/{name}?version=` finds it by this"
    )
    job_id: str | None
    damage: str | None = Field(
        default=None,
        description="when and what was found damaged of its files, where it is stored",
    )
    created_at: datetime
    links: dict[str, str]


class UploadedModel(ModelAnswer):
    num_skipped: int
    skipped: list[Rejected] = Field(
        description="the first files of the archive that are no part of the model, with reasons; "
        "they were not opened"
    )


# Jobs ---------------------------------------------------------------------------------------------


class JobError(BaseModel):
    code: str
    message: str | None


class JobState(BaseModel):
    """The fields that jobs of all kinds share."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    status: Status
    done: bool = Field(description="succeeded, failed or cancelled")
    waiting: str | None = Field(
        default=None, description="why a queued job cannot start: no live worker takes its kind"
    )
    cancel_requested: bool
    owner: str | None = Field(description=OWNER)
    attempts: int = Field(description="attempts since the last checkpoint; after 5 the job fails")
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    links: dict[str, str]


class ImportProgress(BaseModel):
    stage: Literal["queued", "downloading", "inspecting", "done"]
    progress: float = Field(description="0..1, of the stage; 0 if its total is not known")
    num_bytes: int = Field(description="received so far")
    total_bytes: int | None = Field(description="null until it is known; some servers do not say")
    num_skipped: int = Field(
        description="objects below a prefix that are larger than any file of an archive may be"
    )
    num_images: int = Field(description="inspected so far")


class ImportAnswer(JobState):
    """A job that fetches a dataset; `links` has the dataset once it has succeeded."""

    dataset: str = Field(description="the name that it gets")
    url: str = Field(description="without its query, which may hold a signature")
    progress: ImportProgress


class WebhookState(BaseModel):
    url: str
    secret: str | None = Field(
        default=None, description="only in the answer that accepts the job; never again"
    )
    delivered_at: datetime | None = Field(default=None, description="time of the latest message")
    last_error: str | None = Field(default=None, description="error of the latest message")


class Origin(BaseModel):
    """The checkpoint of an earlier job from which this one continues."""

    job: str
    step: int


class JobAnswer(JobState):
    kind: Literal["train", "fine_tune", "distill"]
    pause_requested: bool
    priority: int
    tags: list[str] = Field(default=[], description="`GET /train-jobs?tag=` finds jobs by them")
    notes: str = Field(default="", description="what its owner wrote about it")
    dataset: str
    dataset_version: int | None = Field(description="the version of it that the job reads")
    dataset_digest: str | None
    model_name: str
    progress: dict[str, Any] = Field(
        description="step, steps, images_seen, loss, images_per_second, eta_seconds, progress 0..1"
    )
    checkpoint_step: int | None
    config: dict[str, Any] = Field(
        description="the resolved hyperparameters; `reasons` explains each default"
    )
    keep: Literal["last", "best"]
    keep_checkpoints: int
    resumed_from: Origin | None = Field(description="the job and the step from which it continues")
    begins_with: str | None = Field(
        description="the model whose weights it starts from, to fine-tune or to distil them"
    )
    warnings: list[str] = Field(
        default=[], description="what its plan warned of: too few steps for images like the data's"
    )
    webhook: WebhookState | None


class QueuedJob(BaseModel):
    """A job that runs or waits for a worker."""

    id: str
    collection: str = Field(
        description="`train-jobs`, `sample-jobs`, `evaluations` or `dataset-imports`"
    )
    name: str = Field(description="of its model, or of the dataset that it fetches")
    dataset: str | None
    owner: str | None = Field(description=OWNER)
    waits: bool = Field(description="it has no worker; false: it runs")
    progress: float = Field(description="0..1; of evaluations and imports that of the stage")
    position: int | None = Field(
        description="1 for the next job of its kind; null for a job that runs"
    )
    starts_in_seconds: float | None = Field(
        description="an estimate: from what is left of the jobs that run, and the length of those "
        "before; null if it runs, if no worker takes it, or if nothing tells how long one of these "
        "will take"
    )
    seconds_left: float | None = Field(
        description="an estimate of how long it will run, from now or from its start on; null if "
        "nothing tells"
    )
    waiting: str | None = Field(description="why it cannot start: no live worker takes its kind")
    created_at: datetime
    started_at: datetime | None
    links: dict[str, str]


class QueueAnswer(BaseModel):
    items: list[QueuedJob] = Field(
        description="those that run, the first started first, and those that wait, the next one "
        "first"
    )
    other_running: int = Field(description="jobs of others that run")
    other_waiting: int = Field(description="jobs of others that wait; they have places, too")


class TrainPlan(BaseModel):
    """The job that POST /train-jobs would create for the same request."""

    model_config = ConfigDict(protected_namespaces=())

    dataset: str
    dataset_version: int
    model_name: str
    device: str | None = Field(description="the device that the defaults are chosen for")
    waiting: str | None = Field(
        default=None, description="why the job could not start now: no live worker trains"
    )
    config: dict[str, Any] = Field(
        description="the resolved hyperparameters; `reasons` explains each default"
    )
    steps: int | None = Field(
        default=None,
        description="an estimate, at the speed of recent trainings on this service, or of "
        "benchmarks; null where neither is known",
    )
    seconds: float | None = Field(default=None, description="the same, of training")
    good_minutes: int | None = Field(
        default=None,
        description="an estimate of the least time for images that resemble the data; null where "
        "the speed is not known, or the job begins with trained weights",
    )
    warnings: list[str] = Field(
        default=[], description="why the images will not be good: too few steps"
    )


class CheckpointAnswer(BaseModel):
    step: int
    created_at: datetime
    num_bytes: int
    seconds: float = Field(description="seconds of training until then")
    score: float | None = Field(
        description="the error on held-out images, geometric mean over the noise levels; less is "
        "better; null if it was not measured"
    )
    best: bool
    last: bool
    damage: str | None = Field(
        default=None,
        description="when and what was found damaged of its files, where it is stored",
    )
    links: dict[str, str]


class CheckpointList(BaseModel):
    """The checkpoints of a job, oldest first; `resume_from` accepts any of them."""

    items: list[CheckpointAnswer]


class MetricLine(BaseModel):
    step: int
    loss: float = Field(description="mean over the steps since the previous line")
    learning_rate: float
    images_seen: int
    images_per_second: float
    at: float | None = Field(default=None, description="seconds since 1970")
    seconds: float | None = Field(
        default=None,
        description="of training until then, pauses left out; estimated from the speed in jobs of "
        "earlier versions",
    )


class JobMetrics(BaseModel):
    steps: list[MetricLine]
    evaluations: list[dict[str, Any]] = Field(
        description="the denoising error on held-out images at checkpoints, per noise level; "
        "`score` is the geometric mean over the levels; `images_seen` and `seconds` are as in "
        "`steps`"
    )
