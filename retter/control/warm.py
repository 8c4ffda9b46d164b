"""`retter warm`: fill the store before it is needed, without a burden to the application.

Pages are requested through RETTER one after another, and only while the circuit is CLOSED and the
load is below half of the application's capacity. So visitors always come first.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TextIO
from urllib.parse import quote, urlsplit

from retter._version import VERSION
from retter.config.units import ListenAddress
from retter.control import site, words
from retter.control.client import ended_after

# A little longer than RETTER waits for a slow application.
TIMEOUT_S: Final = 20.0
# A page may come slowly, and an event stream or a radio never ends.
PAGE_S: Final = 60.0
# The time between two checks of a busy application.
BUSY_POLL_S: Final = 1.0
# After this many failures in a row, the command ends.
FAILURES_MAX: Final = 10
FAILURES_NAMED_MAX: Final = 5  # URLs in the report
# Each of several workers tells the first one what it has once a second.
WORKERS_LATE_S: Final = 1.5

# As browsers request a page: what is stored for other programs is not shown to them.
FIELDS: Final = {
    "User-Agent": f"retter-warm/{VERSION}",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Upgrade-Insecure-Requests": "1",
}

# Characters that stand in a target as they are (RFC 3986 section 2); % begins an encoded one.
_IN_TARGETS: Final = "!$%&'()*+,-./:;=?@[]_~"

State = dict[str, Any]


class Page(NamedTuple):
    """A response: its status, its media type, the target of its redirect, and its body."""

    status: int
    media_type: str
    location: str
    body: bytes


@dataclass(slots=True)
class Result:
    """The result. `reason` says why it ended early; "" if every page was requested."""

    good: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list[str])  # the first ones: the URL, and why
    elsewhere: int = 0
    waited_s: float = 0.0
    reason: str = ""


def has_room(state: State) -> bool:
    """Return whether the application has capacity for a page that no visitor waits for."""
    calm = state["state"] == "CLOSED" and not state["paused"] and not state["draining"]
    return bool(calm and state["in_flight"] < max(1.0, (state["limit"] or 2.0) / 2))


class Warmer:
    """Walks through a site.

    Args:
        fetch: Requests a URL. Raises OSError.
        look: Returns the state of RETTER.
        say: Shows progress: pages requested, pages that wait, and whether the application is busy.
        sleep: Waits for a number of seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        fetch: Callable[[str], Page],
        look: Callable[[], State],
        say: Callable[[int, int, bool], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._look = look
        self._say = say
        self._sleep = sleep
        self._clock = clock

    def run(self, start: str, pages_max: int, seconds_max: float) -> Result:
        """Visit pages until all, or `pages_max`, have been visited, or the time is over."""
        result = Result()
        walk = site.Walk(start, pages_max)
        ends_at = self._clock() + seconds_max
        failures = 0
        while (url := walk.next()) is not None:
            if not self._wait_for_room(result, walk, ends_at):
                result.reason = "the time is over"
                break
            why = self._visit(url, walk)
            result.good += not why
            result.failed += bool(why)
            if why and len(result.failures) < FAILURES_NAMED_MAX:
                result.failures.append(f"{url}: {why}")
            failures = failures + 1 if why else 0
            if failures == FAILURES_MAX:
                result.reason = f"{FAILURES_MAX} pages in a row failed"
                break
            self._say(result.good + result.failed, walk.waiting, False)
        result.elsewhere = walk.elsewhere
        return result

    def _wait_for_room(self, result: Result, walk: site.Walk, ends_at: float) -> bool:
        while self._clock() < ends_at:
            if has_room(self._look()):
                return True
            self._say(result.good + result.failed, walk.waiting + 1, True)
            self._sleep(BUSY_POLL_S)
            result.waited_s += BUSY_POLL_S
        return False

    def _visit(self, url: str, walk: site.Walk) -> str:
        """Request a page, add the URLs that it links to, and return why it failed; "" if good."""
        try:
            page = self._fetch(url)
        except (OSError, ValueError, http.client.HTTPException) as error:  # also a bad host name
            return _reason(error)
        if page.location:
            walk.add(site.joined(url, page.location))
        body = site.unpacked(page.body)
        if site.is_sitemap(body):
            return _add_locations(body, walk)
        if page.media_type == "text/html":
            for link in site.links(body.decode("utf-8", "replace"), url):
                walk.add(link)
        return "" if page.status < 400 else f"status {page.status}"


def _add_locations(body: bytes, walk: site.Walk) -> str:
    try:
        for location in site.locations(body):
            walk.add(location)
    except site.NotASitemap as error:
        return f"not a sitemap: {error}"
    return ""


def _reason(error: Exception) -> str:
    """Return what an error says, on one line: its own words may be a peer's, or none."""
    said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return words.printable(said.replace("\n", " "))


def state_at_the_end(look: Callable[[], State], sleep: Callable[[float], None]) -> State:
    """Return the state of RETTER in which all that was requested is counted."""
    state = look()
    if "workers" not in state:
        return state
    sleep(WORKERS_LATE_S)
    return look()


class Visitor:
    """Requests URLs through one listener of RETTER, over one connection if it stays open.

    Args:
        through: The address of the listener. The Host field of a request is that of its URL.
    """

    def __init__(self, through: ListenAddress) -> None:
        self._through = through
        self._connection: http.client.HTTPConnection | None = None

    def fetch(self, url: str) -> Page:
        """Request a URL. Raises OSError and HTTPException."""
        parts = urlsplit(url)
        whole = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = quote(whole, safe=_IN_TARGETS)  # a sitemap may have letters of any script
        fields = {"Host": parts.netloc, **FIELDS}
        if parts.scheme == "https" and not self._through.tls:
            fields["X-Forwarded-Proto"] = "https"
        try:
            return self._ask(target, fields, parts.hostname or "")
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # An idle connection had been closed: try again on a new one.
            return self._ask(target, fields, parts.hostname or "")
        finally:
            self._forget_if_closed()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _ask(self, target: str, fields: dict[str, str], name: str) -> Page:
        if self._connection is None:
            self._connection = self._connected(name)
        connection = self._connection
        try:
            with ended_after(PAGE_S, connection.sock):
                return self._answer(connection, target, fields)
        except BaseException:
            self.close()  # the rest of this answer would be taken for the next one
            raise

    def _answer(
        self, connection: http.client.HTTPConnection, target: str, fields: dict[str, str]
    ) -> Page:
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for field_name, text in fields.items():
            connection.putheader(field_name, text)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read(site.DOCUMENT_BYTES_MAX)
        if not answer.isclosed():  # the body is longer than needed
            self.close()
        media_type = answer.getheader("Content-Type", "").partition(";")[0].strip().lower()
        location = answer.getheader("Location", "") if 300 <= answer.status < 400 else ""
        return Page(answer.status, media_type, location, body)

    def _connected(self, name: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(name or "localhost", timeout=TIMEOUT_S)
        connection.sock = self._opened(name)
        return connection

    def _opened(self, name: str) -> socket.socket:
        if self._through.kind == "unix":
            return _unix_connection(self._through.path)
        where = (self._through.host or "localhost", self._through.port)
        sock = socket.create_connection(where, TIMEOUT_S)
        if not self._through.tls:
            return sock
        # The listener is the operator's own. Its certificate is for the name that visitors use.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(sock, server_hostname=name)

    def _forget_if_closed(self) -> None:
        if self._connection is not None and self._connection.sock is None:
            self._connection = None


def _unix_connection(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def report(result: Result, before: State, store: State) -> str:
    """Return the summary of `retter warm`."""
    seen = result.good + result.failed
    found = f"{words.number(result.good)} good, {words.number(result.failed)} failed"
    lines = [f"{words.pages(seen)} requested: {found}"]
    if result.waited_s:
        lines[0] += f"; waited {words.length(result.waited_s)} for a busy application"
    lines += [f"failed: {url}" for url in result.failures]
    if result.failed > len(result.failures):
        lines.append(f"and {words.number(result.failed - len(result.failures))} more")
    if result.elsewhere:
        links = "link to another host was" if result.elsewhere == 1 else "links to other hosts were"
        lines.append(f"{words.number(result.elsewhere)} {links} not followed")
    lines.append(
        f"the store has {words.responses(store['entries'])} ({words.size(store['bytes'])}), "
        f"{words.number(store['entries'] - before['entries'])} more than before"
    )
    if result.reason:
        lines.append(f"ended early: {result.reason}")
    return "\n".join(lines) + "\n"


class Progress:
    """A line on a terminal that is overwritten; without a terminal, nothing is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = False

    def show(self, done: int, waiting: int, busy: bool) -> None:
        """Show the progress."""
        if not self._stream.isatty():
            return
        text = f"{words.pages(done)} requested, {words.number(waiting)} more known"
        text += ", waiting: the application is busy" if busy else ""
        self._stream.write(f"\r{text:78}")
        self._stream.flush()
        self._shown = True

    def end(self) -> None:
        """Start a new line after the last one."""
        if self._shown:
            self._stream.write("\n")
