"""A client of the service, for programs of one's own; the command line uses it too.

    from client.client import Client

    with Client("http://localhost:8000") as service:
        service.add_dataset("digits", "digits.zip")
        job = service.train("digits", minutes=2, model_name="my-digits")
        for job in service.watch(job.id):
            print(job.status, job.progress)
        made = service.sample("my-digits", num_images=16, class_label="7")
        made.images[0]  # a PNG file

Errors are one of

    ClientError
    ├── Unreachable    no answer: nothing listens there, or the connection broke
    ├── Refused        the service says no; `status` and `problem` (RFC 9457) say why
    └── JobEnded       a job that was waited for has failed or was cancelled

Every option of a request that is not named here goes by keyword as GET /docs has it.
"""

import base64
import io
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from client.answers import (
    CheckpointList,
    DatasetAnswer,
    JobAnswer,
    JobMetrics,
    ModelAnswer,
    TrainPlan,
)

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE, KEY_VARIABLE = "DIFFUSION_URL", "DIFFUSION_API_KEY"
CONNECT_SECONDS = 5.0
POLL_SECONDS = 30  # how long the service may hold an answer back until something changes
CHUNK = 1 << 18

Answer = TypeVar("Answer", bound=BaseModel)
Sent = Callable[[int, int], None]  # bytes so far, and in all


class ClientError(Exception):
    pass


class Unreachable(ClientError):
    pass


class Refused(ClientError):
    """`problem` is the body of the answer, empty where that was not the service's own."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"the service answered {status}")
        self.status, self.problem = status, problem


class JobEnded(ClientError):
    pass


@dataclass(frozen=True)
class Noised:
    """`content` is a file of `media_type`: one image, or a strip of them, one for each t. `used` is
    what the answer's headers say: seed, schedule, alpha and sigma of each."""

    content: bytes
    media_type: str
    used: dict[str, str]


@dataclass(frozen=True)
class Samples:
    """PNG files; with `used` they can be made again. `trajectories` has each image's steps where
    they were asked for."""

    images: list[bytes]
    used: dict[str, Any]
    trajectories: list[list[dict[str, Any]]] | None = None


class Client:
    """`url` and `api_key` default to DIFFUSION_URL and DIFFUSION_API_KEY, `timeout` is the seconds
    to wait for an answer."""

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout: float = 600.0
    ) -> None:
        self.url = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        key = api_key or os.environ.get(KEY_VARIABLE)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ready(self) -> dict[str, Any]:
        """What GET /readyz says, also where a part is down."""
        answer: dict[str, Any] = self._ask("GET", "/readyz", allowed=(503,)).json()
        return answer

    # Noise ------------------------------------------------------------------------------------

    def noise(
        self,
        image: bytes | str | os.PathLike[str],
        t: int | Sequence[int],
        *,
        accept: str = "image/png",
        **options: Any,
    ) -> Noised:
        """The forward process on an image: x_t for each t, 0 is the clean image."""
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        times = [t] if isinstance(t, int) else list(t)
        answer = self._ask(
            "POST",
            "/noise",
            files={"image": content},
            data={"t": times, **_given(options)},
            headers={"Accept": accept},
        )
        prefix = "diffusion-"
        used = {k.removeprefix(prefix): v for k, v in answer.headers.items() if prefix in k}
        return Noised(answer.content, answer.headers["content-type"], used)

    # Data sets --------------------------------------------------------------------------------

    def add_dataset(
        self, name: str, source: str | os.PathLike[str], *, sent: Sent | None = None
    ) -> DatasetAnswer:
        """Upload a zip or tar of images, or a folder of them; its top folders are the classes."""
        with _archive(Path(source)) as file:
            answer = self._upload(_path("datasets", name), file, sent)
        return DatasetAnswer.model_validate_json(answer.content)

    def datasets(self) -> Iterator[DatasetAnswer]:
        """The newest first."""
        return self._pages("/datasets", DatasetAnswer, "name")

    def dataset(self, name: str) -> DatasetAnswer:
        return self._get(_path("datasets", name), DatasetAnswer)

    def preview(self, name: str) -> bytes:
        """A contact sheet, PNG."""
        return self._ask("GET", _path("datasets", name, "preview")).content

    def delete_dataset(self, name: str) -> None:
        self._ask("DELETE", _path("datasets", name))

    # Training ---------------------------------------------------------------------------------

    def train(self, dataset: str | None = None, **request: Any) -> JobAnswer:
        """Start a job; what is left out is chosen from the data."""
        body = _given({"dataset": dataset, **request})
        return JobAnswer.model_validate_json(self._ask("POST", "/train-jobs", json=body).content)

    def plan(self, dataset: str | None = None, **request: Any) -> TrainPlan:
        """What `train` would start, with the reason for each choice."""
        body = _given({"dataset": dataset, **request})
        answer = self._ask("POST", "/train-jobs/plan", json=body)
        return TrainPlan.model_validate_json(answer.content)

    def jobs(self, status: str | None = None) -> Iterator[JobAnswer]:
        """The newest first."""
        return self._pages("/train-jobs", JobAnswer, "id", status=status)

    def job(self, job_id: str) -> JobAnswer:
        return self._get(_path("train-jobs", job_id), JobAnswer)

    def watch(self, job_id: str, *, patience: float = 120.0) -> Iterator[JobAnswer]:
        """The job now, and then whenever it has changed, until it is done. A service that cannot be
        reached is tried again for `patience` seconds."""
        for content in self._changes(_path("train-jobs", job_id), patience):
            job = JobAnswer.model_validate_json(content)
            yield job
            if job.done:
                return

    def pause(self, job_id: str) -> JobAnswer:
        return self._do(job_id, "pause")

    def resume(self, job_id: str) -> JobAnswer:
        return self._do(job_id, "resume")

    def cancel(self, job_id: str) -> JobAnswer:
        return self._do(job_id, "cancel")

    def delete_job(self, job_id: str) -> None:
        self._ask("DELETE", _path("train-jobs", job_id))

    def metrics(self, job_id: str) -> JobMetrics:
        return self._get(_path("train-jobs", job_id, "metrics"), JobMetrics)

    def checkpoints(self, job_id: str) -> CheckpointList:
        return self._get(_path("train-jobs", job_id, "checkpoints"), CheckpointList)

    def log(self, job_id: str) -> str:
        """A JSON object per line."""
        return self._ask("GET", _path("train-jobs", job_id, "log")).text

    def evaluate(self, model: str, **request: Any) -> dict[str, Any]:
        """How good a model is; waits for the result. Raises JobEnded."""
        body = _given({"model": model, **request})
        accepted = self._ask("POST", "/evaluations", json=body)
        job = self._finished(accepted.headers["location"])
        result: dict[str, Any] = job["result"]
        return result

    # New images -------------------------------------------------------------------------------

    def sample(self, model: str, **request: Any) -> Samples:
        """New images. More than one answer holds are made by a worker, and waited for. Raises
        JobEnded."""
        body = _given({"model": model, **request})
        for field in ("init_image", "mask"):
            if isinstance(body.get(field), bytes):
                body[field] = base64.b64encode(body[field]).decode("ascii")
        answer = self._ask("POST", "/sample", json=body, headers={"Accept": "application/json"})
        if answer.status_code == httpx.codes.ACCEPTED:
            return self._from_job(answer.headers["location"])
        made = answer.json()
        images = [base64.b64decode(image) for image in made["images"]]
        return Samples(images, made["used"], made["trajectories"])

    def _from_job(self, address: str) -> Samples:
        job = self._finished(address)
        with tempfile.TemporaryFile() as file:
            self._download(job["links"]["archive"], file)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                names = sorted(n for n in archive.namelist() if n.endswith(".png"))
                return Samples([archive.read(name) for name in names], job["used"])

    # Models -----------------------------------------------------------------------------------

    def models(self) -> Iterator[ModelAnswer]:
        """The newest first."""
        return self._pages("/models", ModelAnswer, "name")

    def model(self, name: str) -> ModelAnswer:
        return self._get(_path("models", name), ModelAnswer)

    def pull_model(self, name: str, target: str | os.PathLike[str]) -> Path:
        """Write the model's zip, a folder in diffusers' format, to this file; all of it or none."""
        path = Path(target)
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, delete=False) as file:
            try:
                self._download(_path("models", name, "download"), file)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        return path

    def push_model(
        self, name: str, source: str | os.PathLike[str], *, sent: Sent | None = None
    ) -> ModelAnswer:
        """Upload a model: a folder in diffusers' format, or a zip of one."""
        with _archive(Path(source)) as file:
            answer = self._upload(_path("models", name), file, sent)
        return ModelAnswer.model_validate_json(answer.content)

    def delete_model(self, name: str) -> None:
        self._ask("DELETE", _path("models", name))

    # The way there and back -------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, *, allowed: Sequence[int] = (), **request: Any
    ) -> httpx.Response:
        with self._reached():
            return _checked(self._http.request(method, path, **request), allowed)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Unreachable(f"no service answers at {self.url} ({error})") from None
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise Unreachable(f"the connection to {self.url} broke: {said}") from None

    def _get(self, path: str, kind: type[Answer]) -> Answer:
        return kind.model_validate_json(self._ask("GET", path).content)

    def _do(self, job_id: str, what: str) -> JobAnswer:
        answer = self._ask("POST", _path("train-jobs", job_id, what))
        return JobAnswer.model_validate_json(answer.content)

    def _pages(self, path: str, kind: type[Answer], key: str, **query: Any) -> Iterator[Answer]:
        after = None
        while True:
            params = _given({"limit": 100, "after": after, **query})
            page = self._ask("GET", path, params=params).json()
            for item in page["items"]:
                yield kind.model_validate(item)
            if not page["has_more"]:
                return
            after = page["items"][-1][key]

    def _changes(self, path: str, patience: float) -> Iterator[bytes]:
        version, lost_at = "", None
        while True:
            headers = {"If-None-Match": version} if version else {}
            params = {"wait": POLL_SECONDS} if version else {}
            try:
                answer = self._ask("GET", path, params=params, headers=headers, allowed=(304,))
            except ClientError as error:
                if not _passes(error):
                    raise
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience:
                    raise
                time.sleep(1.0)
                continue
            lost_at, version = None, answer.headers.get("etag", version)
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                yield answer.content

    def _finished(self, address: str) -> dict[str, Any]:
        while True:
            job: dict[str, Any] = self._ask("GET", address, params={"wait": POLL_SECONDS}).json()
            if job["status"] == "succeeded":
                return job
            if job["done"]:
                error = (job["error"] or {}).get("message")
                raise JobEnded(f"job {job['id']} {job['status']}" + (f": {error}" if error else ""))

    def _upload(self, path: str, file: IO[bytes], sent: Sent | None) -> httpx.Response:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)

        def chunks() -> Iterator[bytes]:
            while chunk := file.read(CHUNK):
                yield chunk
                if sent:
                    sent(file.tell(), size)

        return self._ask("PUT", path, content=chunks(), headers={"Content-Length": str(size)})

    def _download(self, path: str, file: IO[bytes]) -> None:
        with self._reached(), self._http.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
            for chunk in _checked(answer).iter_bytes(CHUNK):
                file.write(chunk)
        file.flush()


def _checked(answer: httpx.Response, allowed: Sequence[int] = ()) -> httpx.Response:
    """Raises Refused."""
    if not answer.is_success and answer.status_code not in allowed:
        try:
            problem = answer.json()
        except ValueError:
            problem = {}
        raise Refused(answer.status_code, problem if isinstance(problem, dict) else {})
    return answer


def _path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _passes(error: ClientError) -> bool:
    """What a service that starts again says, or does not say."""
    if isinstance(error, Refused):
        return error.status in (502, 503, 504)
    return isinstance(error, Unreachable)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def _archive(source: Path) -> Iterator[IO[bytes]]:
    """The file itself; of a folder a zip of what is in it, hidden files left out, the same bytes
    each time."""
    if source.is_file():
        with source.open("rb") as file:
            yield file
        return
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is no file and no folder")
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(source.rglob("*")):
                inside = path.relative_to(source)
                if not path.is_file() or any(part.startswith(".") for part in inside.parts):
                    continue
                entry = zipfile.ZipInfo(inside.as_posix())  # without the file's date
                with path.open("rb") as part, archive.open(entry, "w") as target:
                    shutil.copyfileobj(part, target, CHUNK)
        file.seek(0)
        yield file
