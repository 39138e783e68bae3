"""Logs: one line per event, with the job's id, as JSON or readable on a terminal. A job's process
writes its lines to a file as well, always as JSON."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from host.tracing import add_trace_ids

LOG_FILE = "log.jsonl"  # in the scratch folder of a job's process


def configure_logs(kept: Path | None = None) -> None:
    """Log to standard error, and to the file `kept` where one is given."""
    readable = sys.stderr.isatty()
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_trace_ids,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_KeptLines(kept)] if kept else []),
            *renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


class _KeptLines:
    """A processor that also writes each event to a file, in whole lines from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        line: Any = structlog.processors.format_exc_info(logger, method, dict(event))
        with contextlib.suppress(OSError):  # a full disk: the job itself will report it
            os.write(self._file, json.dumps(line, default=str).encode() + b"\n")
        return event
