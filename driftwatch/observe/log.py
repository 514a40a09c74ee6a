"""Structured logs, one event a line: `key=value` for people, JSON for machines; the same keys everywhere."""

import logging
import sys
from typing import TextIO

import structlog


def configure(log_format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for the process. `log_format` is text or json; lines go to `stream`, standard error by default."""
    stream = stream or sys.stderr
    minimum = getattr(logging, level.upper())
    renderer: structlog.typing.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True, bool_as_flag=False
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard module; only what is wrong with them concerns an operator.
    logging.basicConfig(
        stream=stream, level=logging.WARNING, format="level=%(levelname)s logger=%(name)s event=%(message)r"
    )
