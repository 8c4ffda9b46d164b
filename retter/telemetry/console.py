"""Log records as lines for a person at a terminal: the time, how bad it is, and one sentence.

All figures of a record stand in its JSON form (log.py); here are those that a person needs.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

Record = Mapping[str, Any]

# SGR (ECMA-48 section 8.3.117)
_COLOURS: Final = {"warning": "33", "error": "1;31", "critical": "1;31"}

_BETTER: Final = frozenset({"CLOSED", "HALF-OPEN"})  # states of the circuit
_TROUBLE: Final = frozenset({"note", "busy", "bad"})  # tones of situations (admin/situation.py)

# Other records say the same.
_SILENT: Final = frozenset({"application-absent", "application-back"})
_SILENT_ROWS: Final = frozenset({"disk not used", "disk set aside", "shared store away"})


def line(record: Record, at: float, *, colour: bool) -> str:
    """Return a record as a line.

    Args:
        at: The time, in seconds since 1970; shown as local time.
    """
    level = shown_level(record)
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    head = f"{clock} {'' if level == 'info' else level:7}"
    sgr = _COLOURS.get(level)
    if colour:
        head = f"\x1b[{sgr}m{head}\x1b[0m" if sgr else f"\x1b[2m{head}\x1b[0m"
    return f"{head} {printable(sentence(record))}"


def is_silent(record: Record) -> bool:
    """Return whether another line tells a person the same."""
    if record["event"] != "situation":
        return record["event"] in _SILENT
    row, now = record.get("row"), str(record.get("now"))
    return row in _SILENT_ROWS or (row == "log lost" and now.startswith("The access log"))


def shown_level(record: Record) -> str:
    """Return the level that a person sees: good news is no warning, although programs get one.

    The record of each change of the circuit, and of each summary, has always been a warning, and
    operators may alert on it. So the record itself stays as it is.
    """
    level = str(record.get("level", "info"))
    event = record["event"]
    if event == "circuit":
        is_good = record.get("after") in _BETTER and record.get("tone") not in _TROUBLE
    elif event == "digest":
        # The store helped in that minute, and nobody got an error.
        bad = ("refused", "failed", "gave_up", "access_lines_dropped")
        is_good = record.get("state") == "CLOSED" and not any(record.get(name) for name in bad)
    else:
        return level
    return "info" if is_good and level == "warning" else level


def printable(text: str) -> str:
    """Escape characters that would control a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def sentence(record: Record) -> str:
    """Return the sentence of a record."""
    event = str(record["event"])
    make = _SENTENCES.get(event)
    if make is not None:
        try:
            return make(record)
        except KeyError:
            pass  # not ours, but of the same name
    return _any(event, record)


def _any(event: str, record: Record) -> str:
    rest = {n: v for n, v in record.items() if n not in ("event", "level", "timestamp")}
    parts = [str(rest.pop(name)) for name in ("error", "message", "advice") if name in rest]
    parts += [f"{name.replace('_', ' ')} {_value(value)}" for name, value in rest.items()]
    return f"{event.replace('-', ' ')}{': ' if parts else ''}{'; '.join(parts)}"


def _value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join([str(one) for one in cast("list[object]", value)])
    return str(value)


def _serving(record: Record) -> str:
    listen = ", ".join(record["listen"])
    admin = record["admin"]
    dashboard = "no dashboard" if admin == "off" else f"dashboard: {admin}"
    open_to = f" (open to {record['open_to']})" if "open_to" in record else ""
    return (
        f"RETTER {record['version']} serves {listen}{open_to} in front of {record['upstream']}; "
        f"{dashboard}"
    )


def _circuit(record: Record) -> str:
    now = f" {record['now']}" if "now" in record else ""
    times = f" after {record['changes']} changes" if "changes" in record else ""
    return f"Circuit {record['after']}{times}.{now}"


def _digest(record: Record) -> str:
    kinds = ("fresh", "stored", "refused", "failed", "gave_up")
    parts = [f"{record[name]:,} {name.replace('_', ' ')}" for name in kinds]
    lost = record.get("access_lines_dropped", 0)
    return (
        f"Last minute: {record['requests']:,} requests, {', '.join(parts)}; "
        f"circuit {record['state']}"
        + (f"; {lost:,} lines of the access log dropped" if lost else "")
    )


def _with_advice(text: str) -> Callable[[Record], str]:
    def make(record: Record) -> str:
        said = text.format_map(record)
        return f"{said}: {record['advice']}" if "advice" in record else said

    return make


_SENTENCES: Final[Mapping[str, Callable[[Record], str]]] = {
    "serving": _serving,
    "circuit": _circuit,
    "situation": lambda record: str(record["now"]),
    "incident": lambda record: str(record["words"]),
    "digest": _digest,
    "draining": _with_advice("Stopping; {connections} connections are open"),
    "stopped": lambda record: "Stopped." if record["drained"] else "Stopped at once.",
    "reloaded": lambda record: (
        f"Reloaded: {_value(record['changed'])} changed."
        if record["changed"]
        else "Reloaded; nothing has changed."
    ),
    "needs-restart": lambda record: f"Restart for these settings: {_value(record['settings'])}",
    "reload-failed": _with_advice("Not reloaded: {error}"),
    "takeover": _with_advice("Process {successor} is to take over"),
    "no-admin": _with_advice("No admin listener: {error}"),
    "admin-elsewhere": _with_advice("Another program listens on {wanted}; dashboard: {admin}"),
    "cannot-start": _with_advice("RETTER cannot start: {error}"),
    "configuration": lambda record: f"Configuration: {record['notice']}",
    "access-log-not-written": _with_advice("The access log {path} is not written: {error}"),
    "access-log-written-again": _with_advice("The access log is written again"),
    "hint": lambda record: f"Advice: {record['advice']}",
    "fewer-connections": _with_advice("At most {connections_max} client connections"),
}
