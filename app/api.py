"""`python -m app.api`: the HTTP server, as the environment says."""

import uvicorn

from app.logs import configure_logs
from app.main import create_app
from app.settings import Settings


def main() -> None:
    settings = Settings()
    configure_logs(settings.log_level, settings.log_format)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # app.logs writes one line per request
        server_header=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
