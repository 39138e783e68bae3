"""`python -m app.server`: the HTTP server, configured by the environment.

`--fd N` makes it serve on a listening socket that it inherits.
"""

import argparse
import os
import signal
import socket
import sys

from host.loading import loading

with loading():
    import uvicorn

    from app.access.exposure import Exposed, check_exposure
    from app.http.listener import listen
    from app.logs import configure_logs
    from app.main import create_app
    from app.settings import Settings
    from host.environment import InvalidSetting, read_settings
    from host.lifeline import DIES_WITH_PARENT, end_with_parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.server")
    parser.add_argument("--fd", type=int, help="a listening socket to inherit")
    fd = parser.parse_args().fd
    try:
        settings = read_settings(Settings)
        configure_logs(settings.log_level, settings.log_format)
        check_exposure(settings)
        app = create_app(settings)
        listener = socket.socket(fileno=fd) if fd else listen(settings.host, settings.port)
    except (OSError, Exposed, InvalidSetting) as error:
        print(error, file=sys.stderr)
        return 1
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # app.http.request_log writes one line per request
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    if DIES_WITH_PARENT in os.environ:
        end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    # uvicorn raises the signal that stopped it once more when it is done.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
