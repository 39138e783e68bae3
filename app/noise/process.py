"""`python -m app.noise.process`: forks the processes that add noise to images for the API.

Each process has a socket (app.processes.pool). It reads the settings first and then requests: a
header with the form and a payload with the image. It exits when the socket closes.
"""

import os
import socket
from contextlib import suppress

from host.loading import loading

with loading():
    from starlette.responses import Response

    from app.http.errors import RequestError
    from app.http.problems import problem_response, unexpected_problem
    from app.logs import configure_logs, log
    from app.noise.answer import answer
    from app.noise.schema import NoiseForm
    from app.processes.fork_server import fork_for_each_socket
    from app.processes.wire import Header, packed, read
    from app.settings import Settings
    from host.environment import read_settings


def main() -> None:
    fork_for_each_socket(_serve)


def _serve(connection: socket.socket) -> None:
    with suppress(EOFError, ConnectionError):  # the API closed the socket
        _serve_requests(connection)


def _serve_requests(connection: socket.socket) -> None:
    stream = connection.makefile("rb")
    header, _ = read(stream)
    settings = read_settings(Settings, header)
    configure_logs(settings.log_level, settings.log_format)
    connection.sendall(packed({"pid": os.getpid()}))
    while True:
        header, image = read(stream)
        response = _respond(header, image, settings)
        described = {"status": response.status_code, "headers": response.raw_headers}
        connection.sendall(packed(described, bytes(response.body)))


def _respond(header: Header, image: bytes, settings: Settings) -> Response:
    form = NoiseForm.model_construct(**header["form"], image=image)
    scope = {"state": {"request_id": header["request_id"]}}
    try:
        return answer(form, header["media_type"], settings)
    except RequestError as error:
        return problem_response(error.kind, str(error), scope, error.errors, error.headers)
    except Exception as error:
        log.exception("request failed", request_id=header["request_id"])
        return unexpected_problem(error, scope)


if __name__ == "__main__":
    main()
