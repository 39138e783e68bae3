"""Structured logs of the API, its engine and the processes that they start."""

import logging
import sys
from typing import TextIO

import structlog

from host.tracing import add_trace_ids

log = structlog.stdlib.get_logger("app")


def configure_logs(level: str = "info", format: str = "auto", stream: TextIO = sys.stderr) -> None:  # noqa: A002
    """Send the records of structlog and of the standard library to `stream`.

    `format` is "json" (one object per line), "console" (readable text) or "auto", which means
    console on a terminal and JSON elsewhere.
    """
    readable = format == "console" or (format == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_trace_ids,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
