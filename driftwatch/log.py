"""Structured logs, one event a line: `key=value` for people, JSON for machines, with the same keys everywhere.

Libraries, the event loop and the interpreter's warnings log through the standard `logging` module. Their lines have
the same form, and the key `logger` names the library. driftwatch's own events skip that module, because it is slower.
"""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import structlog

from driftwatch.escape import printable

FOR_PROGRAMS = ("changes",)  # keys with list values, omitted from the text format because it has a short form


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
    # Libraries' messages below WARNING are of no use to an operator.
    logging.basicConfig(handlers=[_Libraries(stream, common, renderer)], level=logging.WARNING)
    logging.captureWarnings(capture=True)


class _Text:
    """Renders `key=value` with every value escaped, because text from Git or a client must not control a terminal."""

    def __init__(self) -> None:
        self._render = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True, bool_as_flag=False
        )

    def __call__(self, logger: Any, method: str, line: structlog.typing.EventDict) -> str:
        # logfmt escapes line feeds by itself, but does not escape spaces in keys.
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
    """Escape what JSON leaves unescaped although a terminal acts on it: DEL."""
    return json.dumps(line, **options).replace("\x7f", "\\u007f")


class _Libraries(logging.Handler):
    """Writes libraries' log records through the same logger class as our own, so that lines never interleave."""

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
        except Exception:  # noqa: BLE001  a failure to log must not stop the code that logs
            self.handleError(record)


def _for_people(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key in FOR_PROGRAMS:
        line.pop(key, None)
    return line
