"""Structured logs, one event a line: `key=value` for people, JSON for machines; the same keys everywhere."""

import logging
import sys
from typing import Any, TextIO

import structlog

FOR_PROGRAMS = ("changes",)  # keys whose values are lists, of which a line for people has a short form


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
            *([] if log_format == "json" else [_for_people]),
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


def _for_people(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key in FOR_PROGRAMS:
        line.pop(key, None)
    return line
