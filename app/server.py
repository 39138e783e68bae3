"""`python -m app.server`: the HTTP server, as the environment says.

With `--fd N` on a listening socket that it inherits.
"""

import argparse
import os
import signal
import socket
import sys
import threading

from host.loading import loading

with loading():
    import uvicorn

    from app.http.listener import listen
    from app.logs import configure_logs
    from app.main import create_app
    from app.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.server")
    parser.add_argument("--fd", type=int, help="a listening socket to inherit")
    fd = parser.parse_args().fd
    settings = Settings()
    configure_logs(settings.log_level, settings.log_format)
    try:
        listener = socket.socket(fileno=fd) if fd else listen(settings.host, settings.port)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    config = uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # app.logs writes one line per request
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    if os.environ.get("DIFFUSION_DIE_WITH_PARENT"):
        threading.Thread(target=_leave_with_parent, daemon=True).start()
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _leave_with_parent() -> None:
    """Whoever started us holds the other end of our standard input."""
    while os.read(0, 4096):  # not sys.stdin, whose lock a thread must not hold at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
