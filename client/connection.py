"""The connection of a client: requests, retries, pages and transfers, and their errors."""

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from client.answers import JobState

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE, KEY_VARIABLE = "DIFFUSION_URL", "DIFFUSION_API_KEY"
CONNECT_SECONDS = 5.0
POLL_SECONDS = 30  # long polling: the service answers when the job changes, or after this time
CHUNK = 1 << 18  # bytes

Answer = TypeVar("Answer", bound=BaseModel)
State = TypeVar("State", bound=JobState)
Sent = Callable[[int, int], None]  # called with the bytes sent so far, and in total


class ClientError(Exception):
    pass


class Unreachable(ClientError):
    pass


class Refused(ClientError):
    """An answer with an error status.

    `problem` is its body; it is empty if something other than the service answered.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"the service answered {status}")
        self.status, self.problem = status, problem


class JobEnded(ClientError):
    pass


class Connection:
    """What every call of a client needs.

    `url` and `api_key` default to DIFFUSION_URL and DIFFUSION_API_KEY. `timeout` is how many
    seconds to wait for an answer.
    """

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

    def _request(
        self, method: str, path: str, *, allowed: Sequence[int] = (), **request: Any
    ) -> httpx.Response:
        with self._connection_errors():
            return _check_status(self._http.request(method, path, **request), allowed)

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Unreachable(f"no service answers at {self.url} ({error})") from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the connection to {self.url} broke: {reason}") from None

    def _linked(self, link: str) -> str:
        """Return the whole address of a link in an answer, which may lead below a path of a
        proxy's. Other paths are below `url`."""
        return str(self._http.base_url.join(link))

    def _get(self, path: str, kind: type[Answer]) -> Answer:
        return kind.model_validate_json(self._request("GET", path).content)

    def _pages(
        self, path: str, kind: type[Answer], key: str, limit: int = 100, **query: Any
    ) -> Iterator[Answer]:
        after = None
        while True:
            params = without_none({"limit": limit, "after": after, **query})
            page = self._request("GET", path, params=params).json()
            for item in page["items"]:
                yield kind.model_validate(item)
            if not page["has_more"]:
                return
            after = page["items"][-1][key]

    def _watch(self, path: str, kind: type[State], patience: float) -> Iterator[State]:
        for content in self._poll(path, patience):
            job = kind.model_validate_json(content)
            yield job
            if job.done:
                return

    def _poll(self, path: str, patience: float) -> Iterator[bytes]:
        version, lost_at = "", None
        while True:
            headers = {"If-None-Match": version} if version else {}
            params = {"wait": POLL_SECONDS} if version else {}
            try:
                answer = self._request("GET", path, params=params, headers=headers, allowed=(304,))
            except ClientError as error:
                if not _is_transient(error):
                    raise
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience:
                    raise
                time.sleep(1.0)
                continue
            lost_at, version = None, answer.headers.get("etag", version)
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                yield answer.content

    def _wait_for(self, address: str, kind: type[Answer]) -> Answer:
        """Wait until the job has succeeded. Raises JobEnded."""
        while True:
            answer = self._request("GET", address, params={"wait": POLL_SECONDS})
            job = JobState.model_validate_json(answer.content)
            if job.status == "succeeded":
                return kind.model_validate_json(answer.content)
            if job.done:
                why = f": {job.error.message}" if job.error and job.error.message else ""
                raise JobEnded(f"job {job.id} {job.status}{why}")

    def _upload(
        self,
        method: str,
        path: str,
        file: IO[bytes],
        sent: Sent | None,
        **query: str | int | None,
    ) -> httpx.Response:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)

        def chunks() -> Iterator[bytes]:
            while chunk := file.read(CHUNK):
                yield chunk
                if sent:
                    sent(file.tell(), size)

        headers, params = {"Content-Length": str(size)}, without_none(query)
        return self._request(method, path, content=chunks(), headers=headers, params=params)

    def _download(self, path: str, file: IO[bytes], query: Mapping[str, Any] | None = None) -> None:
        with self._connection_errors(), self._http.stream("GET", path, params=query) as answer:
            if answer.is_error:
                answer.read()
            for chunk in _check_status(answer).iter_bytes(CHUNK):
                file.write(chunk)
        file.flush()


def _check_status(answer: httpx.Response, allowed: Sequence[int] = ()) -> httpx.Response:
    """Return the answer. Raises Refused if its status is an error that is not `allowed`."""
    if not answer.is_success and answer.status_code not in allowed:
        try:
            problem = answer.json()
        except ValueError:
            problem = {}
        raise Refused(answer.status_code, problem if isinstance(problem, dict) else {})
    return answer


def path_to(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _is_transient(error: ClientError) -> bool:
    """Return whether the service may only be restarting, or has been asked too often, so that a
    retry makes sense."""
    if isinstance(error, Refused):
        return error.status in (429, 502, 503, 504)
    return isinstance(error, Unreachable)


def without_none(values: Mapping[str, Any]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
