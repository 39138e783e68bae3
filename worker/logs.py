"""One line per event, with the job's id: JSON, or for eyes on a terminal. What a job's process says
is kept in a file as well, always as JSON."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LOG_FILE = "log.jsonl"  # in the folder that a job's process has for itself


def configure_logs(kept: Path | None = None) -> None:
    """`kept` is the file that has them too."""
    readable = sys.stderr.isatty()
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_KeptLines(kept)] if kept else []),
            *renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


class _KeptLines:
    """Whole lines, whichever thread writes them."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        line: Any = structlog.processors.format_exc_info(logger, method, dict(event))
        with contextlib.suppress(OSError):  # a full disk: the job has more important troubles
            os.write(self._file, json.dumps(line, default=str).encode() + b"\n")
        return event
