"""Log records: one line each, for people on a terminal, as JSON for programs.

Only rare events are logged: a change of state, a start, a fault. A record costs more than a
response from the store, so the caller decides first whether it is worth a line.

`configure` belongs to the process and is called only by the command line; a program that embeds
RETTER keeps its own structlog configuration.
"""

import logging
import os
import sys
from typing import Final, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from retter.telemetry import line_writer
from retter.telemetry.line_writer import lines_to

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def get_logger(**context: object) -> FilteringBoundLogger:
    """Return a logger; it may be made at import, before `configure` is called."""
    return cast("FilteringBoundLogger", structlog.get_logger(**context))


def configure(format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send records to `stream` (standard error) from `level` (debug, info, warning, error) on.

    `format` is console, json, or auto: console if the stream is a terminal.
    """
    global _lines, _format
    out = stream or sys.stderr  # sys.stderr is None in a process that was started without one
    if _lines is None or _lines.stream is not out:
        _lines = _Lines(out, _lines.close() if _lines is not None else 0)
    if stream is None:
        # The reports of asyncio go this way too, so that they never wait for a reader.
        logging.lastResort = logging.StreamHandler(_lines)
    terminal = out is not None and out.isatty()
    console = format == "console" or (format == "auto" and terminal)
    _format = "console" if console else "json"
    colors = terminal and not os.environ.get("NO_COLOR")  # https://no-color.org
    structlog.configure(
        processors=[
            *([] if _worker is None else [_with_worker]),
            structlog.processors.add_log_level,
            *(_console(colors) if console else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_LineLoggerFactory(_lines),
        # Not cached, so that a later call changes existing loggers too. Records are rare.
        cache_logger_on_first_use=False,
    )


def format_in_use() -> str:
    """Return the format that `auto` has chosen: console or json."""
    return _format


def flush(wait_s: float = 0.0) -> None:
    """Offer the remaining lines again, at the end of the program, for this long."""
    if _lines is not None:
        _lines.flush(wait_s)


def lines_dropped() -> int:
    """Return how many lines were dropped."""
    return _lines.dropped if _lines is not None else 0


def forked(worker: int) -> None:
    """This process was just forked: from now on each record names the worker."""
    global _worker
    _worker = worker
    line_writer.forked()
    structlog.configure(processors=[_with_worker, *structlog.get_config()["processors"]])


def _with_worker(_logger: object, _method: str, record: EventDict) -> EventDict:
    record.setdefault("worker", _worker)
    return record


def _console(colors: bool) -> list[Processor]:
    import time

    from retter.telemetry import console

    def render(_logger: object, _method: str, record: EventDict) -> str:
        if console.is_silent(record):
            raise structlog.DropEvent
        traceback = record.pop("exception", None)
        shown = console.line(record, time.time(), colour=colors)
        lines = [] if traceback is None else str(traceback).split("\n")
        return "\n".join([shown, *[console.printable(one) for one in lines]])

    return [structlog.processors.format_exc_info, _printable, render]


def _json() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _head_first,
        structlog.processors.JSONRenderer(default=_json_default),
    ]


def _head_first(_logger: object, _method: str, record: EventDict) -> EventDict:
    """Move the fields that every record has to the front."""
    head = {name: record.pop(name) for name in ("timestamp", "level", "event")}
    return {**head, **record}


def _json_default(value: object) -> object:
    """Convert values that JSON has no type for: bytes as Latin-1, the rest as text."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _printable(_logger: object, _method: str, record: EventDict) -> EventDict:
    """Escape control characters, so that no peer's bytes reach the terminal as commands."""
    for key, value in record.items():
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            value = value.encode("unicode_escape").decode("ascii")
        record[key] = value
    return record


class _Lines:
    """The stream that records go to."""

    def __init__(self, stream: TextIO | None, dropped: int) -> None:
        self.stream = stream
        self.dropped = dropped
        self._writer = lines_to(stream)

    def write(self, text: str) -> None:
        # A full disk or a reader that hangs or has gone must not harm the request that is logged.
        self.dropped += self._writer.write(text.encode("utf-8", "backslashreplace"))

    def flush(self, wait_s: float = 0.0) -> None:
        self._writer.flush(wait_s)

    def close(self) -> int:
        return self.dropped + self._writer.close()


_lines: _Lines | None = None
_worker: int | None = None  # of this process; None if it is the only one
_format = "console"


class _LineLogger:
    """The last step: one write for each line."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def msg(self, line: str) -> None:
        self._lines.write(line + "\n")

    debug = info = warning = warn = error = err = critical = fatal = exception = log = msg


class _LineLoggerFactory:
    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def __call__(self, *_args: object) -> _LineLogger:
        return _LineLogger(self._lines)
