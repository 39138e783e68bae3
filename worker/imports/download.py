"""A file from an address of HTTP that a caller of the API chose: to public hosts only, of a bounded
size, with redirects, and continued by Range where the connection breaks.

The address is not trusted, and neither are those that it redirects to: each goes through
worker.public_hosts. Only hosts are logged and named in failures: the rest of a URL may be a secret.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, urldefrag, urljoin, urlsplit

import httpcore
import structlog

from store.urls import check_url
from worker.job_process import JobFailed
from worker.public_hosts import NotPublic, Resolve, connections_to, is_public

MAX_REDIRECTS = 10
CONNECT_SECONDS = 10.0  # to one address
WAIT_SECONDS = 30.0  # for the next bytes
LONGEST_SECONDS = 6 * 3600.0  # of a download as a whole, so that a slow host holds no worker
RETRY_SECONDS = (1.0, 5.0, 20.0)  # before the attempts that follow one without a new byte
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429)  # statuses that may be others soon, like those of 5xx
IN_URLS = ":/?#[]@!$&'()*+,;=%"  # with letters, digits and -._~ (RFC 3986, 2)

log = structlog.get_logger("import")


class Broken(Exception):
    """The end of an attempt that another one may go on from; its text is for the caller."""


@dataclass
class Download:
    """A file that is fetched to `path`, at most `max_bytes` of it.

    `received` is called with the bytes that are here and the total, None where it is not told, and
    ends the download by raising Stopped; `pause` waits some seconds, or raises Stopped. `allows`
    says which addresses of hosts may be called.
    """

    path: Path
    max_bytes: int
    received: Callable[[int, int | None], None]
    pause: Callable[[float], None]
    allows: Callable[[str], bool] = is_public
    resolve: Resolve | None = None
    retry_seconds: tuple[float, ...] = RETRY_SECONDS

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + LONGEST_SECONDS
        self._tls = httpcore.default_ssl_context()
        self._validator = b""  # of the version that the file has the beginning of
        self._host = ""

    def fetch(self, url: str) -> None:
        """Download the file. Raises JobFailed, Stopped and OSError."""
        most, failures = 0, 0
        with self.path.open("wb") as file:
            while True:
                try:
                    return self._attempt(url, file)
                except Broken as broken:
                    failures = failures + 1 if file.tell() <= most else 1
                    most = max(most, file.tell())
                    log.info("attempt ended", host=self._host, why=str(broken), here=file.tell())
                    if failures > len(self.retry_seconds) or time.monotonic() > self._deadline:
                        message = f"{self._host} {broken}; tried {failures} times without success"
                        raise JobFailed("source_unavailable", message) from None
                self.pause(self.retry_seconds[failures - 1])

    def _attempt(self, url: str, file: IO[bytes]) -> None:
        for _ in range(1 + MAX_REDIRECTS):
            with self._answer(url, file.tell()) as answer:
                if answer.status not in REDIRECTS:
                    return self._save(answer, file)
                url = self._target(url, _header(answer, b"location"))
        raise JobFailed("source_refused", f"the url redirects more than {MAX_REDIRECTS} times")

    @contextmanager
    def _answer(self, url: str, have: int) -> Iterator[httpcore.Response]:
        self._host = urlsplit(url).netloc
        headers: dict[bytes | str, bytes | str] = {
            "User-Agent": "diffusion-service",
            "Accept-Encoding": "identity",
        }
        if have and self._validator:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._validator}
        limits = {"connect": CONNECT_SECONDS, "read": WAIT_SECONDS, "write": WAIT_SECONDS}
        with self._failures():
            network = connections_to(url, self._deadline, self.allows, self.resolve)
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=network) as pool,
                pool.stream("GET", url, headers=headers, extensions={"timeout": limits}) as answer,
            ):
                yield answer

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Say in words what ends an attempt."""
        try:
            yield
        except NotPublic as refusal:
            raise JobFailed("address_refused", f"{self._host} is refused: {refusal}") from None
        except httpcore.TimeoutException:
            raise Broken("did not answer in time") from None
        except httpcore.ConnectError as error:
            if isinstance(error.__context__, ssl.SSLError):
                message = f"TLS could not be agreed on with {self._host}"
                raise JobFailed("source_unavailable", message) from None
            raise Broken("takes no connection") from None
        except (httpcore.NetworkError, httpcore.ProtocolError):
            raise Broken("ended the connection before the end of the file") from None
        except (socket.gaierror, UnicodeError):
            raise Broken("has no address") from None

    def _save(self, answer: httpcore.Response, file: IO[bytes]) -> None:
        """Write the answer's body to the file: behind what is there, or from the beginning."""
        if answer.status in PASSING or answer.status >= 500:
            raise Broken(f"answered {answer.status}")
        if answer.status == 416 and file.tell():  # the file is a shorter one by now
            self._begin(file)
            raise Broken("answered 416")
        if answer.status not in (200, 206):
            code = "source_not_found" if answer.status in (404, 410) else "source_refused"
            raise JobFailed(code, f"{self._host} answered {answer.status}")
        total = self._place(answer, file)
        if (total or 0) > self.max_bytes:
            message = f"the file has {total} bytes; at most {self.max_bytes} are allowed"
            raise JobFailed("too_large", message)
        self.received(file.tell(), total)
        for chunk in answer.iter_stream():
            if file.tell() + len(chunk) > self.max_bytes:
                message = f"the file has more than {self.max_bytes} bytes, which is the limit"
                raise JobFailed("too_large", message)
            file.write(chunk)
            self.received(file.tell(), total)
        if file.tell() < (total or 0):  # of an answer to a Range, which may be short
            raise Broken("ended the connection before the end of the file")

    def _place(self, answer: httpcore.Response, file: IO[bytes]) -> int | None:
        """Go to where the body belongs; return the bytes of the whole file, None if not told."""
        if answer.status == 206:
            part = re.fullmatch(rb"bytes (\d+)-\d+/(\d+)", _header(answer, b"content-range"))
            if not part or int(part[1]) != file.tell():
                self._begin(file)
                raise Broken("answered with another part than asked for")
            return int(part[2])
        self._begin(file)
        etag = _header(answer, b"etag")
        self._validator = etag if etag.startswith(b'"') else b""
        length = _header(answer, b"content-length")
        return int(length) if length.isdigit() else None

    def _begin(self, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()

    def _target(self, url: str, location: bytes) -> str:
        try:
            target = urldefrag(urljoin(url, quote(location, safe=IN_URLS))).url
            return check_url(target, "it")
        except ValueError as refusal:
            message = f"{self._host} redirects to an address that is refused: {refusal}"
            raise JobFailed("source_refused", message) from None


def _header(answer: httpcore.Response, name: bytes) -> bytes:
    """Return the value of a header, empty where it is missing."""
    return next((value for key, value in answer.headers if key.lower() == name), b"")
