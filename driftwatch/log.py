"""Structured logs, one event a line: `key=value` for people, JSON for machines; the same keys everywhere.

Libraries, the event loop and the interpreter's warnings log through the standard module: their lines have the same
form, and `logger` says whose they are. Ours do not take that way, which is the longer one.
"""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import structlog

from driftwatch.escape import printable

FOR_PROGRAMS = ("changes",)  # keys whose values are lists, of which a line for people has a short form


def configure(log_format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for the process. `log_format` is text or json; lines go to `stream`, standard error by default."""
    stream = stream or sys.stderr
    minimum = getattr(logging, level.upper())
    renderer: structlog.typing.Processor
    renderer = structlog.processors.JSONRenderer(_json) if log_format == "json" else _Text()
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*common, *([] if log_format == "json" else [_for_people]), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    # Only what is wrong with libraries concerns an operator.
    logging.basicConfig(handlers=[_Libraries(stream, common, renderer)], level=logging.WARNING)
    logging.captureWarnings(capture=True)


class _Text:
    """Renders `key=value`, with every value escaped: a reader's terminal must not obey what Git or a client wrote."""

    def __init__(self) -> None:
        self._render = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True, bool_as_flag=False
        )

    def __call__(self, logger: Any, method: str, line: structlog.typing.EventDict) -> str:
        # logfmt has a form of its own for line feeds, and keys have none for spaces.
        safe = {_key(key): _safe(value) for key, value in line.items()}
        return self._render(logger, method, safe)


def _safe(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def _key(key: Any) -> str:
    text = str(key)
    return text if text.isprintable() and " " not in text else printable(text).replace(" ", "_")


def _json(line: Any, **options: Any) -> str:
    """Escape what JSON leaves as it is although a terminal acts on it: DEL, and surrogates if not ASCII already."""
    return json.dumps(line, **options).replace("\x7f", "\\u007f")


class _Libraries(logging.Handler):
    """Writes what libraries log, by the way that our own lines take in the end: two never mix in one line."""

    def __init__(
        self, stream: TextIO, common: Sequence[structlog.typing.Processor], renderer: structlog.typing.Processor
    ) -> None:
        super().__init__()
        self._out = structlog.PrintLogger(stream)
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._out.msg(self.format(record))
        except Exception:  # noqa: BLE001  a line that cannot be written must not end what wanted to write it
            self.handleError(record)


def _for_people(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key in FOR_PROGRAMS:
        line.pop(key, None)
    return line
