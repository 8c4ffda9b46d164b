"""Keeps the history and the incidents beside the store (`--store`), for the next process.

One file, written each quarter of an hour, after each incident and at the end: a line of JSON, then
the rows of the chart as they are in memory. 200 KB in a quarter of an hour is little for a memory
card. If the file cannot be read, the history begins again.
"""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from retter.admin.chart import Chart
from retter.admin.incidents import Incidents

if TYPE_CHECKING:
    from retter.disk.shelf import DiskShelf

FILE: Final = "history"
FORMAT: Final = 1
BYTES_MAX: Final = 1024 * 1024  # RETTER did not write a larger file
SAVE_EVERY_S: Final = 900.0

# Exceptions when a foreign file is read, also for numbers or nesting that are too large.
_BROKEN: Final = (
    ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip


class Archive:
    """Writes the history of one proxy, and reads that of the process before."""

    def __init__(self, disk: "DiskShelf", chart: Chart, incidents: Incidents, now: float) -> None:
        self._disk = disk
        self._chart = chart
        self._incidents = incidents
        self._due_at = now + SAVE_EVERY_S

    def tick(self, now: float) -> None:
        """Write when a quarter of an hour has passed."""
        if now >= self._due_at:
            self.save_soon(now)

    def save_soon(self, now: float) -> None:
        """Write the file in the thread of the disk."""
        self._due_at = now + SAVE_EVERY_S
        self._disk.write_soon(FILE, packed(self._chart, self._incidents, self._disk.wall()))

    def save(self) -> None:
        """Write the file now, and wait until it is done."""
        self._disk.write_now(FILE, packed(self._chart, self._incidents, self._disk.wall()))

    def restore(self) -> bool:
        """Continue from the file of the previous process; False if it cannot be read."""
        data = self._disk.read_file(FILE, BYTES_MAX)
        with contextlib.suppress(*_BROKEN):
            unpack(data, self._chart, self._incidents, self._disk.wall())
            return True
        return False


def packed(chart: Chart, incidents: Incidents, wall: float) -> bytes:
    """Return the history and the incidents as octets."""
    parts = chart.packed()
    rows = b"".join(parts)
    whole = incidents.whole()
    head: dict[str, Any] = {
        "format": FORMAT,
        "at": round(wall, 1),
        "byte_order": sys.byteorder,
        "parts": [len(part) for part in parts],
        "incidents": whole,
        "checksum": _checksum(whole, rows),
    }
    return json.dumps(head).encode() + b"\n" + rows


def _checksum(incidents: Any, rows: bytes) -> int:
    return crc32(rows, crc32(json.dumps(incidents).encode()))


def unpack(data: bytes, chart: Chart, incidents: Incidents, wall: float) -> None:
    """Continue after a history in the form of `packed`.

    Raises:
        ValueError: It is none, or it is broken. Then nothing has changed.
        KeyError: The same.
        TypeError: The same.
        AttributeError: The same.
        ArithmeticError: The same.
        RecursionError: The same.
    """
    line, _, rows = data.partition(b"\n")
    head = json.loads(line)
    if head["format"] != FORMAT or head["byte_order"] != sys.byteorder:
        raise ValueError("a history of another version or machine")
    if _checksum(head["incidents"], rows) != head["checksum"] or sum(head["parts"]) != len(rows):
        raise ValueError("a broken history")
    parts: list[bytes] = []
    for length in head["parts"]:
        parts.append(rows[:length])
        rows = rows[length:]
    # A clock that was set back since: as if no time had passed.
    absent_s = max(0.0, wall - float(head["at"]))
    restored = Incidents()
    restored.restore(head["incidents"])
    chart.restore(parts, absent_s)
    incidents.restore(head["incidents"])
