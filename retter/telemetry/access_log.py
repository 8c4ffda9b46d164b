"""A line for each request (`--access-log`), JSON or combined, collected and written together.

A line through a logging library costs more than a response from the store, so lines are made here
and written once per tick. No line contains a cookie, a credential or a session: of the owner only
its class is written, and a target or Referer is cut before a session in it.
"""

import sys
import time
from collections.abc import Callable
from json import JSONEncoder
from typing import Final

from retter.base.counters import Counters
from retter.http.message import RequestHead
from retter.store.owner import OwnerRules
from retter.store.policy import Identity
from retter.store.target import url_sessions
from retter.telemetry.line_writer import lines_to, open_for_lines

# Bytes that do not wait for the tick: as much as a pipe holds (64 KiB), so that a fast reader
# always finds something to read.
LINES_MAX: Final = 256

_quoted = JSONEncoder().encode
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip

# Characters that could end a quoted field or control a terminal, escaped as Apache does.
_ESCAPED: Final = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 161))} | {
    34: '\\"',
    92: "\\\\",
}


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text  # the usual case: translate takes a microsecond
    return text.translate(_ESCAPED)


class AccessLog:
    """Collects lines and writes them when flushed.

    Args:
        path: A file, which is appended to, or `-` for standard output.
        before: The log that this one replaces.
        rules: Which parts of a target are sessions.
        counters: For lines that were dropped.
        combined: The combined format of Apache and nginx instead of JSON.
        with_lane: A last field in that format, the lane; `-` while requests are not sorted.
        share: The share of good responses (below 400) that is written; all others always are.
        clock: Seconds for durations, finer than the loop's milliseconds.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(
        self,
        path: str,
        rules: OwnerRules,
        counters: Counters,
        before: "AccessLog | None" = None,
        *,
        combined: bool = False,
        with_lane: bool = False,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self.clock = clock
        self._combined = combined
        self._with_lane = with_lane
        self._share = share
        self._credit = 1.0  # so the first one is written
        self._sample = "" if share == 1 else f', "sample": {share:g}'
        self._counters = counters
        self.path = path
        if path != "-":
            self._writer = open_for_lines(path)
        elif before is not None and before.path == "-":
            self._writer = before._writer  # and the lines that wait there
        else:
            self._writer = lines_to(sys.stdout)
        self._lines: list[str] = []
        self._second = -1
        self._date = ""

    def add(
        self,
        client: str,
        request: RequestHead | None,
        identity: Identity | None,
        status: int,
        source: str,
        reason: str,
        took_s: float,
        body_bytes: int = 0,
        first_byte_s: float | None = None,
        lane: str = "",
    ) -> None:
        """Add the line of one answered request.

        Args:
            request: None if its head could not be read.
            status: 0 if the client left before an answer began.
            source: "backend", "cache", or "retter" for RETTER's own responses.
            took_s: From the request's head to the end of the response.
            body_bytes: Octets of the response body that were written; 0 for RETTER's own responses.
            first_byte_s: From the request's head to the response's, if the body came later.
            lane: Its lane in the queue (breaker/lanes.py); "" while requests are not sorted.
        """
        sampled = 200 <= status < 400
        if sampled:
            # Every n-th, without a random number: the lines that are left out cost nothing more.
            self._credit += self._share
            if self._credit < 1:
                return
            self._credit -= 1
        if self._combined:
            line = self._combined_line(client, request, status, body_bytes)
            if self._with_lane:
                line += f" {lane or '-'}"
        else:
            line = f'{{"time": {time.time():.3f}, "client": {_quoted(client)}'
            if request is not None:
                line += (
                    f', "method": {_quoted(request.method.decode("latin-1"))}'
                    f', "host": {_quoted(request.host.decode("latin-1"))}'
                    f', "target": {_quoted(self._shown(request.target))}'
                )
            line += (
                f', "status": {status}, "source": "{source}", "reason": "{reason}"'
                f', "bytes": {body_bytes}, "took_ms": {took_s * 1000:.2f}'
            )
            if first_byte_s is not None:
                line += f', "first_byte_ms": {first_byte_s * 1000:.2f}'
            if identity is not None:
                line += f', "owner": "{identity.owner_class.value}"'
            if lane:
                line += f', "lane": "{lane}"'
            line += self._sample + "}" if sampled else "}"
        self._lines.append(line)
        if len(self._lines) >= LINES_MAX:
            self.flush()

    def _shown(self, target: bytes) -> str:
        if url_sessions(target, self.rules) != []:  # or it is not known whether there are any
            return target.partition(b"?")[0].partition(b";")[0].decode("latin-1") + "?(session)"
        return target.decode("latin-1")

    def _combined_line(
        self, client: str, request: RequestHead | None, status: int, body_bytes: int
    ) -> str:
        first = referer = agent = "-"
        if request is not None:
            version = "1.1" if request.http11 else "1.0"
            method = request.method.decode("latin-1")
            first = _escaped(f"{method} {self._shown(request.target)} HTTP/{version}")
            referer = _escaped(self._shown(request.first(b"referer") or b"-"))
            agent = _escaped((request.first(b"user-agent") or b"-").decode("latin-1"))
        # This field has no quotes, so a space would end it. A trusted proxy may send any X-Real-IP.
        shown = _escaped(client).replace(" ", "\\x20")
        # 499 is nginx's word for a client that left before its answer.
        return (
            f'{shown or "unix:"} - - [{self._now()}] "{first}" {status or 499} '
            f'{body_bytes or "-"} "{referer}" "{agent}"'
        )

    def _now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, now = second, time.gmtime(second)
            # English names of months: strftime would use the locale's.
            month = _MONTHS[now.tm_mon - 1]
            self._date = time.strftime(f"%d/{month}/%Y:%H:%M:%S +0000", now)
        return self._date

    @property
    def trouble(self) -> str:
        """Why lines cannot be written, as a full disk; "" if they can, or the reader is slow."""
        return self._writer.trouble

    def flush(self) -> None:
        """Write the collected lines, as far as the reader takes them."""
        if self._lines:
            lines, self._lines = self._lines, []
            text = "\n".join(lines) + "\n"
            self._counters.access_lines_dropped += self._writer.write(text.encode())
        else:
            self._writer.flush()

    def close(self, after: "AccessLog | None" = None, wait_s: float = 0.0) -> None:
        """Write the rest, waiting this long for the reader, and close the file.

        `after` is the log that replaces this one.
        """
        self.flush()
        if after is not None and after._writer is self._writer:
            return
        self._counters.access_lines_dropped += self._writer.close(wait_s)
