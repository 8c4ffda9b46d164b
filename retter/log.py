"""Where log records go: one line each, for people on a terminal, as JSON for programs.

Only what is rare is logged: a change of state, a start, a fault. A record costs more than an
answer from the store, so whoever calls this decides first whether it is worth a line.

`configure` belongs to the process and is called by the command line alone; a program that embeds
RETTER keeps its own structlog configuration.
"""

import os
import sys
from contextlib import suppress
from typing import Final, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def get_logger(**context: object) -> FilteringBoundLogger:
    """Return a logger; it may be made at import, before `configure` is called."""
    return cast("FilteringBoundLogger", structlog.get_logger(**context))


def configure(format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send records to `stream` (standard error) from `level` (debug, info, warning, error) on.

    `format` is console, json, or auto: console if the stream is a terminal.
    """
    out = stream or sys.stderr
    console = format == "console" or (format == "auto" and out.isatty())
    colors = out.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_console(colors) if console else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_LineLoggerFactory(out),
        # Not cached, so that a later call changes the loggers that are there: a record is rare.
        cache_logger_on_first_use=False,
    )


def _console(colors: bool) -> list[Processor]:
    return [
        _printable,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        _head_first,
        structlog.processors.JSONRenderer(default=_json_default),
    ]


def _head_first(_logger: object, _method: str, record: EventDict) -> EventDict:
    """Put what every record has at its start, where an eye that runs down the log finds it."""
    head = {name: record.pop(name) for name in ("timestamp", "level", "event")}
    return {**head, **record}


def _json_default(value: object) -> object:
    """Write what JSON has no type for: octets as Latin-1 (one character each), the rest as text."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _printable(_logger: object, _method: str, record: EventDict) -> EventDict:
    """Escape control characters, so that no peer's bytes reach the terminal as commands."""
    for key, value in record.items():
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str) and not value.isprintable():
            value = value.encode("unicode_escape").decode("ascii")
        record[key] = value
    return record


class _LineLogger:
    """The last step: one write for each line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        # A full disk or a log reader that has gone must not fail the request that is logged.
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = warn = error = err = critical = fatal = exception = log = msg


class _LineLoggerFactory:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, *_args: object) -> _LineLogger:
        return _LineLogger(self._stream)
