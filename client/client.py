"""A client of the service for your own programs; the command line uses it too.

    from client.client import Client

    with Client("http://localhost:8000") as service:
        service.add_dataset("digits", "digits.zip")
        job = service.train("digits", minutes=2, model_name="my-digits")
        for job in service.watch(job.id):
            print(job.status, job.progress)
        made = service.sample("my-digits", num_images=16, class_label="7")
        made.images[0]  # a PNG file

The errors are

    ClientError
    ├── Unreachable    no answer: connection refused, reset or timed out
    ├── Refused        the service refused; `status` and `problem` (RFC 9457) give the reason
    └── JobEnded       a job that the client waited for failed or was cancelled

Methods pass other options of a request by keyword, under their names in GET /docs.
"""

import base64
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import httpx
from pydantic import TypeAdapter

from client.answers import (
    AuditAnswer,
    CheckpointList,
    DatasetAnswer,
    DatasetReport,
    ImageAnswer,
    ImportAnswer,
    JobAnswer,
    JobMetrics,
    JobState,
    KeptPictures,
    ModelAnswer,
    ModelFormat,
    PictureAnswer,
    PictureDetails,
    PictureFacets,
    QueueAnswer,
    RecipeSettings,
    TrainPlan,
    TrashAnswer,
    UploadedModel,
    VersionAnswer,
    Visibility,
)
from client.connection import (
    CHUNK,
    ClientError,
    Connection,
    JobEnded,
    Refused,
    Sent,
    Unreachable,
    path_to,
    without_none,
)

__all__ = [
    "Client",
    "ClientError",
    "JobEnded",
    "Noised",
    "Refused",
    "Remade",
    "Samples",
    "Unreachable",
]


@dataclass(frozen=True)
class Noised:
    """The answer of `noise`.

    `content` is a file of `media_type`: one image, or a strip of one image per t. `used` has the
    values of the answer's headers: seed, schedule, and alpha and sigma of each image.
    """

    content: bytes
    media_type: str
    used: dict[str, str]


@dataclass(frozen=True)
class Samples:
    """The answer of `sample`: PNG files.

    The same images can be made again with `used`. `trajectories` has the steps of each image, if
    they were requested.
    """

    images: list[bytes]
    used: dict[str, Any]
    trajectories: list[list[dict[str, Any]]] | None = None


@dataclass(frozen=True)
class Grid:
    """The answer of `grid`: PNG files.

    `picture` shows all images with the axes written on it. `images` and `used` have a list for each
    row; with what is used, `sample` makes the same image.
    """

    picture: bytes
    images: list[list[bytes]]
    used: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Remade:
    """The answer of `again`: a file of `media_type`.

    `exact`: its pixels are those of the first to the bit; else `warning` says what may differ.
    """

    content: bytes
    media_type: str
    exact: bool
    warning: str


class _Evaluated(JobState):
    result: dict[str, Any]


class _Sampled(JobState):
    used: dict[str, Any]


class Client(Connection):
    """The service's calls, a method each.

    `url` and `api_key` default to DIFFUSION_URL and DIFFUSION_API_KEY. `timeout` is how many
    seconds to wait for an answer.
    """

    def ready(self) -> dict[str, Any]:
        """Return the answer of GET /readyz, even if a component is down."""
        answer = self._request("GET", "/readyz", allowed=(503,))
        return TypeAdapter(dict[str, Any]).validate_json(answer.content)

    # Noise ------------------------------------------------------------------------------------

    def noise(
        self,
        image: bytes | str | os.PathLike[str],
        t: int | Sequence[int],
        *,
        accept: str = "image/png",
        **options: Any,
    ) -> Noised:
        """Add noise to an image: x_t for each t; t = 0 is the clean image."""
        times = [t] if isinstance(t, int) else list(t)
        answer = self._request(
            "POST",
            "/noise",
            files={"image": _content(image)},
            data={"t": times, **without_none(options)},
            headers={"Accept": accept},
        )
        prefix = "diffusion-"
        used = {k.removeprefix(prefix): v for k, v in answer.headers.items() if prefix in k}
        return Noised(answer.content, answer.headers["content-type"], used)

    # Datasets ---------------------------------------------------------------------------------

    def add_dataset(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        labels: str | None = None,
        frames: str | None = None,
        range: str | None = None,  # noqa: A002
        sent: Sent | None = None,
    ) -> DatasetAnswer:
        """Upload a zip, a tar, a parquet table or a folder of images.

        Its top folders are the classes, or a label file tells them; `labels` says what is meant, as
        "folders", "none" or "labels.csv:breed". `frames` of animations are "refuse", "first" or
        "all"; `range` says which values of more than 8 bits become black and white, "full", "bits"
        or "data"."""
        with _archive(Path(source)) as file:
            options = {"labels": labels, "frames": frames, "range": range}
            answer = self._upload("PUT", path_to("datasets", name), file, sent, **options)
        return DatasetAnswer.model_validate_json(answer.content)

    def import_dataset(
        self,
        name: str,
        url: str,
        *,
        labels: str | None = None,
        frames: str | None = None,
        range: str | None = None,  # noqa: A002
    ) -> ImportAnswer:
        """Start a job that fetches a dataset: an archive at http://, https:// or s3://bucket/key,
        or all that lies below s3://bucket/prefix/. The rest is as in add_dataset."""
        options = {"labels": labels, "frames": frames, "range": range}
        body = without_none({"name": name, "url": url, **options})
        return ImportAnswer.model_validate_json(
            self._request("POST", "/datasets", json=body).content
        )

    def watch_import(self, job_id: str, *, patience: float = 120.0) -> Iterator[ImportAnswer]:
        """Yield the job now and after each change, until it is done; as `watch` does."""
        return self._watch(path_to("dataset-imports", job_id), ImportAnswer, patience)

    def cancel_import(self, job_id: str) -> ImportAnswer:
        answer = self._request("POST", path_to("dataset-imports", job_id, "cancel"))
        return ImportAnswer.model_validate_json(answer.content)

    def datasets(self) -> Iterator[DatasetAnswer]:
        """List the datasets, newest first."""
        return self._pages("/datasets", DatasetAnswer, "name")

    def dataset(self, name: str, version: int | str | None = None) -> DatasetAnswer:
        """Describe a dataset, or a version of it by its number or digest."""
        params = without_none({"version": version})
        answer = self._request("GET", path_to("datasets", name), params=params)
        return DatasetAnswer.model_validate_json(answer.content)

    def versions(self, name: str) -> Iterator[VersionAnswer]:
        """List the versions of a dataset, newest first."""
        return self._pages(path_to("datasets", name, "versions"), VersionAnswer, "number")

    def images(
        self,
        name: str,
        *,
        class_name: str | None = None,
        split: str | None = None,
        version: int | str | None = None,
    ) -> Iterator[ImageAnswer]:
        """List the images of a dataset, or those of a class, a split, a version, in its order."""
        query = {"class": class_name, "split": split, "version": version}
        return self._pages(path_to("datasets", name, "images"), ImageAnswer, "id", 1000, **query)

    def report(self, name: str, version: int | str | None = None) -> DatasetReport:
        """Return what in a dataset is likely to harm a training: duplicates, blurred images, ..."""
        params = without_none({"version": version})
        answer = self._request("GET", path_to("datasets", name, "report"), params=params)
        return DatasetReport.model_validate_json(answer.content)

    def thumbnail(self, name: str, image: str) -> bytes:
        """Return a small PNG of an image, by its id."""
        return self._request("GET", path_to("datasets", name, "images", image, "thumbnail")).content

    def image_file(self, name: str, image: str) -> bytes:
        """Return the file of an image, as it was uploaded."""
        return self._request("GET", path_to("datasets", name, "images", image, "file")).content

    def add_images(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        class_name: str | None = None,
        labels: str | None = None,
        parent: int | None = None,
        sent: Sent | None = None,
    ) -> DatasetAnswer:
        """Add an archive, a folder or one image to a dataset; return the new version.

        `class_name` is the class of all of them; without it `labels` says where the classes come
        from, as for `add_dataset`. `parent` is the version that they are added to; Refused with the
        status 409 if it is no longer the newest."""
        path, filename = path_to("datasets", name, "images"), Path(source).name
        options: dict[str, str | int | None]
        options = {"class": class_name, "labels": labels, "filename": filename, "parent": parent}
        with _archive(Path(source)) as file:
            answer = self._upload("POST", path, file, sent, **options)
        return DatasetAnswer.model_validate_json(answer.content)

    def change_dataset(
        self,
        name: str,
        *,
        remove: Sequence[str] = (),
        move: Mapping[str, Sequence[str]] | None = None,
        rename: Mapping[str, str] | None = None,
        parent: int | None = None,
    ) -> DatasetAnswer:
        """Remove images, move images to classes and rename classes; return the new version.

        Images are named by their ids; `parent` is as for `add_images`."""
        body = {"remove": list(remove), "move": move, "rename": rename, "parent": parent}
        answer = self._request(
            "POST", path_to("datasets", name, "versions"), json=without_none(body)
        )
        return DatasetAnswer.model_validate_json(answer.content)

    def delete_version(self, name: str, number: int) -> None:
        self._request("DELETE", path_to("datasets", name, "versions", str(number)))

    def preview(self, name: str, **options: str) -> bytes:
        """Return a contact sheet as PNG: some images as a net sees them."""
        return self._request("GET", path_to("datasets", name, "preview"), params=options).content

    def share_dataset(self, name: str, visibility: Visibility = "shared") -> DatasetAnswer:
        """Let every key see a dataset (`shared`), or its owner alone (`private`)."""
        answer = self._request("PATCH", path_to("datasets", name), json={"visibility": visibility})
        return DatasetAnswer.model_validate_json(answer.content)

    def delete_dataset(self, name: str) -> None:
        self._request("DELETE", path_to("datasets", name))

    # Training ---------------------------------------------------------------------------------

    def train(self, dataset: str | None = None, **request: Any) -> JobAnswer:
        """Start a training job; defaults are chosen from the data."""
        body = without_none({"dataset": dataset, **request})
        return JobAnswer.model_validate_json(
            self._request("POST", "/train-jobs", json=body).content
        )

    def plan(self, dataset: str | None = None, **request: Any) -> TrainPlan:
        """Return the job that `train` would start, with the reason for each default."""
        body = without_none({"dataset": dataset, **request})
        answer = self._request("POST", "/train-jobs/plan", json=body)
        return TrainPlan.model_validate_json(answer.content)

    def jobs(self, status: str | None = None, tag: str | None = None) -> Iterator[JobAnswer]:
        """List the training jobs, newest first; with `status` or `tag` only those."""
        return self._pages("/train-jobs", JobAnswer, "id", status=status, tag=tag)

    def job(self, job_id: str) -> JobAnswer:
        return self._get(path_to("train-jobs", job_id), JobAnswer)

    def watch(self, job_id: str, *, patience: float = 120.0) -> Iterator[JobAnswer]:
        """Yield the job now and after each change, until it is done.

        Requests to a service that cannot be reached are retried for `patience` seconds.
        """
        return self._watch(path_to("train-jobs", job_id), JobAnswer, patience)

    def queue(self) -> QueueAnswer:
        """Return what runs, and what waits for a worker, with places and times."""
        return self._get("/queue", QueueAnswer)

    def pause(self, job_id: str) -> JobAnswer:
        return self._job_action(job_id, "pause")

    def resume(self, job_id: str) -> JobAnswer:
        return self._job_action(job_id, "resume")

    def cancel(self, job_id: str) -> JobAnswer:
        return self._job_action(job_id, "cancel")

    def delete_job(self, job_id: str) -> None:
        self._request("DELETE", path_to("train-jobs", job_id))

    def annotate(
        self, job_id: str, *, tags: Sequence[str] | None = None, notes: str | None = None
    ) -> JobAnswer:
        """Replace the tags or the notes of a job, or both."""
        body = without_none({"tags": None if tags is None else list(tags), "notes": notes})
        answer = self._request("PATCH", path_to("train-jobs", job_id), json=body)
        return JobAnswer.model_validate_json(answer.content)

    def metrics(self, job_id: str) -> JobMetrics:
        return self._get(path_to("train-jobs", job_id, "metrics"), JobMetrics)

    def checkpoints(self, job_id: str) -> CheckpointList:
        return self._get(path_to("train-jobs", job_id, "checkpoints"), CheckpointList)

    def log(self, job_id: str) -> str:
        """Return the log, one JSON object per line."""
        return self._request("GET", path_to("train-jobs", job_id, "log")).text

    def evaluate(self, model: str, **request: Any) -> dict[str, Any]:
        """Measure how good a model is, and wait for the result. Raises JobEnded."""
        body = without_none({"model": model, **request})
        accepted = self._request("POST", "/evaluations", json=body)
        return self._wait_for(self._linked(accepted.headers["location"]), _Evaluated).result

    # New images -------------------------------------------------------------------------------

    def sample(self, model: str, **request: Any) -> Samples:
        """Make new images. Raises JobEnded.

        If they are too many for one answer, a worker makes them, and this method waits for it.
        """
        body = _with_pictures(without_none({"model": model, **request}))
        answer = self._request("POST", "/sample", json=body, headers={"Accept": "application/json"})
        if answer.status_code == httpx.codes.ACCEPTED:
            return self._samples_of_job(self._linked(answer.headers["location"]))
        made = answer.json()
        images = [base64.b64decode(image) for image in made["images"]]
        return Samples(images, made["used"], made["trajectories"])

    def grid(
        self,
        model: str | None = None,
        *,
        x: tuple[str, Sequence[Any]],
        y: tuple[str, Sequence[Any]] | None = None,
        **request: Any,
    ) -> Grid:
        """Make images that differ in one setting or in two, from the same noise.

        `x` and `y` are each a field of `sample` and its values, for the columns and the rows:
        `x=("num_inference_steps", [5, 10, 20])`. `model` may be left out where models are an axis.
        """
        axes = {
            name: {"setting": axis[0], "values": list(axis[1])}
            for name, axis in (("x", x), ("y", y))
            if axis is not None
        }
        body = _with_pictures(without_none({"model": model, **request})) | axes
        headers = {"Accept": "application/json"}
        made = self._request("POST", "/sample/grid", json=body, headers=headers).json()
        rows = [[c for c in made["cells"] if c["y"] == row] for row in range(len(y[1]) if y else 1)]
        return Grid(
            base64.b64decode(made["picture"]),
            [[base64.b64decode(cell["image"]) for cell in row] for row in rows],
            [[cell["used"] for cell in row] for row in rows],
        )

    def again(
        self,
        file: bytes | str | os.PathLike[str],
        *,
        accept: str = "*/*",
        **pictures: bytes | str | os.PathLike[str] | None,
    ) -> Remade:
        """Make an image again from its file, which carries how it was made, or from a JSON answer.

        `pictures` are the files of `init_image` and `mask`, where it was made with these. Refused
        with the status 404 or 409 where the model is gone or another has its name.
        """
        files = {"image": file, **without_none(pictures)}
        answer = self._request(
            "POST",
            "/sample/again",
            files={name: _content(each) for name, each in files.items()},
            headers={"Accept": accept},
        )
        return Remade(
            answer.content,
            answer.headers["content-type"],
            answer.headers["diffusion-exact"] == "1",
            answer.headers.get("diffusion-warning", ""),
        )

    def _samples_of_job(self, address: str) -> Samples:
        job = self._wait_for(address, _Sampled)
        with tempfile.TemporaryFile() as file:
            self._download(self._linked(job.links["archive"]), file)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                names = sorted(n for n in archive.namelist() if n.endswith(".png"))
                return Samples([archive.read(name) for name in names], job.used)

    # The gallery ------------------------------------------------------------------------------

    def keep(self, *files: bytes | str | os.PathLike[str]) -> KeptPictures:
        """Keep images that were sampled here, up to 64 files that carry their recipes. A file that
        is kept already is not kept twice."""
        form = [("image", _content(file)) for file in files]
        return KeptPictures.model_validate_json(
            self._request("POST", "/pictures", files=form).content
        )

    def read_recipe(self, file: bytes | str | os.PathLike[str]) -> RecipeSettings:
        """Return the settings that an image carries, and keep nothing."""
        answer = self._request("POST", "/pictures/recipe", content=_content(file))
        return RecipeSettings.model_validate_json(answer.content)

    def pictures(
        self,
        *,
        model: str | None = None,
        class_name: str | None = None,
        tag: str | None = None,
        starred: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
    ) -> Iterator[PictureAnswer]:
        """List the pictures, newest first. `text` is looked for in their notes."""
        query: dict[str, Any] = {"model": model, "class": class_name, "tag": tag, "text": text}
        times = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        return self._pages("/pictures", PictureAnswer, "id", 100, starred=starred, **query, **times)

    def picture_facets(self, model: str | None = None) -> PictureFacets:
        """Return the models, classes and tags of the pictures; with `model` the classes of that."""
        answer = self._request("GET", "/pictures/facets", params=without_none({"model": model}))
        return PictureFacets.model_validate_json(answer.content)

    def picture(self, picture_id: str) -> PictureDetails:
        return self._get(path_to("pictures", picture_id), PictureDetails)

    def picture_file(self, picture_id: str) -> bytes:
        """Return the file of a picture, as it was kept."""
        return self._request("GET", path_to("pictures", picture_id, "file")).content

    def change_picture(
        self,
        picture_id: str,
        *,
        starred: bool | None = None,
        notes: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> PictureDetails:
        """Star a picture, write notes, tag it; None leaves something as it is."""
        body = without_none({"starred": starred, "notes": notes, "tags": tags})
        answer = self._request("PATCH", path_to("pictures", picture_id), json=body)
        return PictureDetails.model_validate_json(answer.content)

    def change_pictures(
        self,
        ids: Sequence[str],
        *,
        starred: bool | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
    ) -> list[PictureAnswer]:
        """Star and tag up to 100 pictures, all of them or none."""
        body = {"ids": list(ids), "starred": starred}
        tags = {"add_tags": list(add_tags), "remove_tags": list(remove_tags)}
        answer = self._request("PATCH", "/pictures", json={**body, **tags})
        return TypeAdapter(list[PictureAnswer]).validate_json(answer.content)

    def delete_pictures(self, *ids: str) -> None:
        """Move up to 100 pictures to the trash, all of them or none."""
        self._request("DELETE", "/pictures", params={"id": list(ids)})

    # Models -----------------------------------------------------------------------------------

    def models(self) -> Iterator[ModelAnswer]:
        """List the models, newest first."""
        return self._pages("/models", ModelAnswer, "name")

    def model(self, name: str) -> ModelAnswer:
        return self._get(path_to("models", name), ModelAnswer)

    def pull_model(
        self,
        name: str,
        target: str | os.PathLike[str],
        *,
        file_format: ModelFormat = "diffusers",
        **options: Any,
    ) -> Path:
        """Write a model to a file, whole or not at all: a zip of a folder in diffusers' format, or
        of ONNX. `options` are `sampler` and `num_inference_steps`, for ONNX."""
        path = Path(target)
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, delete=False) as file:
            try:
                query = {"format": file_format, **options}
                self._download(path_to("models", name, "download"), file, query)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        return path

    def push_model(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        license: str | None = None,  # noqa: A002  its name in the API
        null_class: int | None = None,
        sent: Sent | None = None,
    ) -> UploadedModel:
        """Upload a model: a folder in diffusers' format, or a zip of one.

        Its README.md may give the license of the weights instead. `null_class` is the class
        embedding that stands for no class; without it, all of a model from elsewhere are classes.
        """
        with _archive(Path(source)) as file:
            answer = self._upload(
                "PUT", path_to("models", name), file, sent, license=license, null_class=null_class
            )
        return UploadedModel.model_validate_json(answer.content)

    def set_license(self, name: str, license: str | None) -> ModelAnswer:  # noqa: A002
        """Say under which license the weights of a model are; None for unknown."""
        answer = self._request("PATCH", path_to("models", name), json={"license": license})
        return ModelAnswer.model_validate_json(answer.content)

    def share_model(self, name: str, visibility: Visibility = "shared") -> ModelAnswer:
        """Let every key see a model (`shared`), or its owner alone (`private`)."""
        answer = self._request("PATCH", path_to("models", name), json={"visibility": visibility})
        return ModelAnswer.model_validate_json(answer.content)

    def delete_model(self, name: str) -> None:
        self._request("DELETE", path_to("models", name))

    # The trash ----------------------------------------------------------------------------------

    def trash(self) -> Iterator[TrashAnswer]:
        """List what was deleted, the last first."""
        return self._pages("/trash", TrashAnswer, "id")

    def restore(self, collection: str, entry_id: str) -> TrashAnswer:
        """Bring back what was deleted."""
        answer = self._request("POST", path_to("trash", collection, entry_id, "restore"))
        return TrashAnswer.model_validate_json(answer.content)

    def remove(self, collection: str, entry_id: str) -> None:
        """Remove for good what was deleted."""
        self._request("DELETE", path_to("trash", collection, entry_id))

    # The audit log, for administrators --------------------------------------------------------

    def audit(self, owner: str | None = None) -> Iterator[AuditAnswer]:
        """List who made, changed, deleted or downloaded what, newest first."""
        return self._pages("/audit", AuditAnswer, "number", owner=owner)

    def who_asked_for(self, file: bytes | str | os.PathLike[str]) -> list[AuditAnswer]:
        """List who asked for an image, newest first: more than one where it was made again."""
        answer = self._request("POST", "/audit/search", content=_content(file))
        return [AuditAnswer.model_validate(item) for item in answer.json()["items"]]

    # Requests ---------------------------------------------------------------------------------

    def _job_action(self, job_id: str, action: str) -> JobAnswer:
        answer = self._request("POST", path_to("train-jobs", job_id, action))
        return JobAnswer.model_validate_json(answer.content)


def _with_pictures(body: dict[str, Any]) -> dict[str, Any]:
    """Return a request in which the files of pictures are base64."""
    files = {
        field: base64.b64encode(body[field]).decode("ascii")
        for field in ("init_image", "mask")
        if isinstance(body.get(field), bytes)
    }
    return body | files


def _content(file: Any) -> bytes:
    return file if isinstance(file, bytes) else Path(file).read_bytes()


@contextmanager
def _archive(source: Path) -> Iterator[IO[bytes]]:
    """Open the file; a folder is zipped first, without hidden files.

    The same folder always gives the same bytes.
    """
    if source.is_file():
        with source.open("rb") as file:
            yield file
        return
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is neither a file nor a folder")
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(source.rglob("*")):
                inside = path.relative_to(source)
                if not path.is_file() or any(part.startswith(".") for part in inside.parts):
                    continue
                # Without the file's date, so that the bytes are the same each time.
                entry = zipfile.ZipInfo(inside.as_posix())
                with path.open("rb") as part, archive.open(entry, "w") as target:
                    shutil.copyfileobj(part, target, CHUNK)
        file.seek(0)
        yield file
