"""A server of files that does what servers do wrong: it redirects, breaks off, lies."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Asked(BaseHTTPRequestHandler):
    """A request, and how to answer it."""

    protocol_version = "HTTP/1.1"
    server: "Source"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.server.answer(self)

    def say(
        self, content: bytes, status: int = 200, *, length: int | None = None, **headers: str
    ) -> None:
        """Answer with the content, and close the connection where `length` promised more."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def say_chunked(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(0, len(content), 1000):
            piece = content[i : i + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def part(self, content: bytes) -> tuple[int, dict[str, str]]:
        """Where the part that was asked for begins, and its headers."""
        begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        return begin, {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}

    def log_message(self, *_: object) -> None:
        pass


class Source(ThreadingHTTPServer):
    """Keeps the path and the headers of each request."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Asked], None], host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Asked)
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []

    def url(self, path: str = "/pets.zip") -> str:
        return f"http://{self.server_address[0]}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is expected here."""


@contextmanager
def a_source(answer: Callable[[Asked], None], host: str = "127.0.0.1") -> Iterator[Source]:
    with Source(answer, host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
