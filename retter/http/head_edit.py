"""Edits of a serialised head: line by line, so that all other octets stay as they are.

Such a head is the start line and the field lines, each ended by CRLF. Field names are given in
lower case with their colon (`b"etag:"`).
"""

import re
from collections.abc import Callable
from typing import Final

from retter.http.message import Fields

# Field lines that say when a response was made. Their names as servers write them.
_TIMES: Final = re.compile(rb"\r\n[DdEe](?:ate|xpires): [^\r\n]*+")


def differ_only_in_times(one: bytes, other: bytes) -> bool:
    """Return whether two heads of the same length are equal, except for Date and Expires."""
    return len(one) == len(other) and _TIMES.sub(b"\r\n", one) == _TIMES.sub(b"\r\n", other)


def with_times_of(head: bytes, other: bytes) -> bytes:
    """Return a head with the Date and Expires of another one, which has the same lines of these."""
    times = iter(_TIMES.findall(other))
    return _TIMES.sub(lambda line: next(times, line[0]), head)


def without_fields(
    head: bytes,
    names: tuple[bytes, ...],
    replace: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """Remove fields.

    Args:
        replace: Returns the line for each line that stays.
    """
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(names)]
    if replace is not None:
        lines = [replace(line) for line in lines]
    return b"\r\n".join(lines)


def with_start_line(head: bytes, start_line: bytes) -> bytes:
    """Replace the request line or status line."""
    return start_line + head[head.index(b"\r\n") :]


def updated(head: bytes, newer: bytes, kept: frozenset[bytes]) -> bytes:
    """Replace the fields that another head has too by those of the other, which come last.

    Args:
        kept: Names (without colon) of fields that stay as they are.
    """
    start_line, *lines = head.split(b"\r\n")[:-1]
    news = [line for line in newer.split(b"\r\n")[1:-1] if _name_of(line) not in kept]
    replaced = {_name_of(line) for line in news}
    old = [line for line in lines if _name_of(line) not in replaced]
    return b"\r\n".join([start_line, *old, *news, b""])


def values_of(head: bytes, name: bytes) -> list[bytes]:
    """Return the value of each line of a field."""
    length = len(name)
    return [
        line[length:].strip(b" \t") for line in head.split(b"\r\n") if line[:length].lower() == name
    ]


def fields_of(head: bytes) -> Fields:
    """Return all fields: lower-case names (without colon), and values."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:-1]]
    return tuple([(name.lower(), value.strip(b" \t")) for name, _, value in lines])


def _name_of(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()
