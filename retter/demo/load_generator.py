"""The open-loop load generator: it sends requests at fixed times, whether or not responses arrive.

A closed-loop tool (wrk, ab) waits for a response before it sends the next request. So a server that
stalls gets fewer requests and looks fast. Here the time of every request is fixed beforehand. Its
latency counts from that time, whatever delayed it: the server, the limit of connections or the
generator itself (no coordinated omission). Run one with `run_load(LoadPlan(...))`.
"""

import asyncio
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from math import nan
from random import Random
from typing import Final
from urllib.parse import urlsplit

from retter.demo.load_client import ClientConnection, Shot
from retter.demo.load_plan import REQUESTS_MAX, LoadError, LoadPlan
from retter.demo.load_report import LoadReport, Sample, Summary, percentile, summarize
from retter.net.supervision import start_task

IDLE_MAX_S: Final = 4.0  # common servers close idle connections after 5 s
SWEEP_S: Final = 0.01
TIMER_GRAIN_S: Final = 0.001  # requests due within this time are sent together
WARM_TRIES: Final = 3  # a page that fails three times does not exist

# The fields of a browser, so that the store and compression behave as with visitors.
_BROWSER: Final = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n"
)


async def run_load(
    plan: LoadPlan,
    *,
    on_second: Callable[[int, Summary], None] | None = None,
    on_start: Callable[[], None] | None = None,
) -> LoadReport:
    """Warm, then load, then wait for the last responses until their timeout.

    `on_second(n, figures)` is called once a second with the requests that ended in it, `on_start()`
    when the warming is over and the load begins. Raises LoadError if the host is not loopback or
    accepts no connections.
    """
    host, port = await resolve(plan)
    generator = _Generator(plan, host, port)
    try:
        warmed = await generator.warm()
        await asyncio.sleep(plan.settle_s)
        if on_start is not None:
            on_start()
        await generator.run(on_second)
    finally:
        await generator.close()
    lag = percentile(generator.lags, 0.99)
    return LoadReport(plan, warmed, generator.samples, lag)


async def resolve(plan: LoadPlan) -> tuple[str, int]:
    """Return the address and the port of the server. Raises LoadError."""
    parts = urlsplit(plan.url)
    if parts.scheme != "http" or not parts.hostname:
        raise LoadError(f"URL: {plan.url!r} is not http://HOST:PORT")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LoadError(f"URL: {parts.hostname}: {error.strerror}") from None
    hosts = [str(entry[4][0]) for entry in found]
    foreign = [host for host in hosts if not ip_address(host.partition("%")[0]).is_loopback]
    if foreign and not plan.any_host:
        raise LoadError(
            f"URL: {parts.hostname} ({foreign[0]}) is not this machine. This program overloads a "
            "server; --this-server-is-mine allows one that you run and may overload"
        )
    for host in hosts:
        try:
            _, writer = await asyncio.open_connection(host, parts.port or 80)
        except OSError:
            continue
        writer.close()
        return host, parts.port or 80
    raise LoadError(f"nothing accepts connections at {plan.url}")


def schedule(plan: LoadPlan, random: Random) -> "array[float]":
    """Return the start of each request, in seconds from the beginning."""
    times = array("d")
    begin = 0.0
    for phase in plan.phases:
        end = begin + phase.seconds
        if phase.rate:
            gap = 1 / phase.rate
            at = begin + (random.expovariate(phase.rate) if plan.poisson else 0.0)
            while at < end:
                times.append(at)
                at += random.expovariate(phase.rate) if plan.poisson else gap
        begin = end
    for burst in plan.bursts:
        times.extend([burst.at_s] * burst.count)
    return array("d", sorted(times)) if plan.bursts else times


class _Generator:
    """Sends the requests of one plan and collects the results."""

    def __init__(self, plan: LoadPlan, host: str, port: int) -> None:
        self.samples: list[Sample] = []
        self.lags = array("d")
        self._plan = plan
        self._address = host, port
        self._loop = asyncio.get_running_loop()
        # Not the loop's clock: that of uvloop stops during a callback and has milliseconds.
        self._now = time.monotonic
        # One reading of both clocks: X-Gen is wall time, all else is monotonic.
        self._wall_minus_monotonic = time.time() - self._now()
        self._random = Random(plan.seed)
        self._idle: list[ClientConnection] = []
        self._open: set[ClientConnection] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._waiting: deque[Shot] = deque()  # for a connection
        self._again: deque[Shot] = deque()  # for a new connection, because the old one was closed
        self._watched: deque[Shot] = deque()  # for the timeout, in order of intended start
        self._unanswered = 0
        self._recording = False
        self._no_more = False  # all requests have been sent
        self._all_ended = asyncio.Event()  # set when all requests have ended
        self._begin = 0.0
        self._warm_done: Callable[[Shot], None] | None = None
        netloc = urlsplit(plan.url).netloc
        self._gets = [self._get_wire(target, netloc) for target in plan.targets]
        self._new_pages = 0  # that were asked for
        self._post = self._post_wire(netloc)
        self._netloc = netloc

    # Warming: each target once, a few at a time

    async def warm(self) -> int:
        """Fetch each target once, and again after a failure; return the number of good ones."""
        plan = self._plan
        targets = plan.targets if plan.warm is None else plan.warm
        pending = deque((target, WARM_TRIES) for target in targets)
        tries: dict[int, tuple[str, int]] = {}
        good = 0
        finished = asyncio.Event()

        def next_one() -> None:
            if not pending:
                if not tries:
                    finished.set()
                return
            target, left = pending.popleft()
            wire = self._get_wire(target, self._netloc)
            shot = Shot(self._now(), 0, False, wire)
            tries[id(shot)] = target, left
            self._shoot(shot)

        def done(shot: Shot) -> None:
            nonlocal good
            target, left = tries.pop(id(shot))
            if 200 <= shot.status < 400 and not shot.error:
                good += 1
            elif left > 1:
                pending.append((target, left - 1))
            self._loop.call_soon(next_one)

        self._warm_done = done
        sweeper = start_task(self._loop, self._sweep(), "ending requests in time")
        for _ in range(min(plan.warm_parallel, len(pending))):
            next_one()
        if tries:
            await finished.wait()
        sweeper.cancel()
        self._warm_done = None
        return good

    # The load

    async def run(self, on_second: Callable[[int, Summary], None] | None) -> None:
        """Send all requests at their times and wait until each has ended."""
        times = schedule(self._plan, self._random)
        self._begin = self._now() + SWEEP_S
        self._recording = True
        sweeper = start_task(self._loop, self._sweep(), "ending requests in time")
        ticker = start_task(self._loop, self._tell(on_second), "telling the figures")
        self._shoot_due(times, 0)
        await self._all_ended.wait()  # every request ends by its timeout at the latest
        sweeper.cancel()
        ticker.cancel()

    async def close(self) -> None:
        """Close all connections."""
        for dial in self._dials:
            dial.cancel()
        for connection in tuple(self._open):
            connection.close()
        await asyncio.sleep(0)

    def _shoot_due(self, times: "array[float]", index: int) -> None:
        now = self._now() - self._begin
        random, post_share = self._random.random, self._plan.post_share
        targets = len(self._gets)
        while index < len(times) and times[index] <= now:
            intended = self._begin + times[index]
            target = int(random() * targets)
            post = random() < post_share
            self._shoot(Shot(intended, target, post, self._wire_of(target, post=post)))
            self.lags.append(self._now() - intended)
            index += 1
        if index < len(times):
            # A timer shorter than a millisecond would fire at once on uvloop, again and again.
            wait = max(TIMER_GRAIN_S, times[index] - now)
            self._loop.call_later(wait, self._shoot_due, times, index)
        else:
            self._loop.call_later(self._plan.seconds - now, self._shot_all)

    def _wire_of(self, target: int, *, post: bool) -> bytes:
        if post:
            return self._post
        if not self._plan.new_pages:
            return self._gets[target]
        self._new_pages += 1
        return self._get_wire(f"{self._plan.targets[target]}?n={self._new_pages}", self._netloc)

    def _shot_all(self) -> None:
        self._no_more = True
        if not self._unanswered:
            self._all_ended.set()

    def _shoot(self, shot: Shot) -> None:
        self._unanswered += 1
        self._watched.append(shot)
        while self._idle:
            connection = self._idle.pop()
            if connection in self._open:
                connection.send(shot)
                return
        self._waiting.append(shot)
        self._dial_if_needed()

    def _dial_if_needed(self) -> None:
        dials = len(self._dials)
        wanted = len(self._waiting) + len(self._again)
        if dials < wanted and dials + len(self._open) < self._plan.connections_max:
            dial = start_task(self._loop, self._dial(), "connecting")
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)

    async def _dial(self) -> None:
        host, port = self._address
        try:
            _, connection = await self._loop.create_connection(
                lambda: ClientConnection(self), host, port
            )
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            self._fail_waiting("refused" if refused else "connect")
            return
        self._open.add(connection)
        self.connection_free(connection)

    def _fail_waiting(self, error: str) -> None:
        if (shot := self._next_waiting(new=True)) is not None:
            self._end(shot, error)

    def _next_waiting(self, *, new: bool) -> Shot | None:
        """Return the next request for a connection, new or used.

        A second try uses a new connection (as in browsers): a used one may be closed again.
        """
        for queue in (self._again, self._waiting) if new else (self._waiting,):
            while queue:
                shot = queue.popleft()
                if not shot.done:
                    return shot
        return None

    # Reports of connections

    def connection_free(self, connection: ClientConnection) -> None:
        """Send the next waiting request over it, or keep it."""
        shot = self._next_waiting(new=connection.uses == 0)
        if shot is not None:
            connection.send(shot)
            return
        connection.idle_since = self._now()
        self._idle.append(connection)

    def connection_over(self, connection: ClientConnection, shot: Shot | None) -> None:
        """Forget a closed connection. Its request has failed, or is tried again as in browsers."""
        self._open.discard(connection)
        if shot is not None and not shot.done:
            if connection.reused_and_unanswered and not shot.post and not shot.retried:
                shot.retried = True
                self._again.append(shot)
            else:
                self._end(shot, "reset" if shot.status == 0 else "cut")
        if self._waiting or self._again:
            self._dial_if_needed()

    def answered(self, shot: Shot) -> None:
        """Record a complete response."""
        if not shot.done:
            self._end(shot, "" if shot.status else "malformed")

    def _end(self, shot: Shot, error: str) -> None:
        shot.done = True
        shot.error = error
        self._unanswered -= 1
        if self._warm_done is not None:
            self._warm_done(shot)
        elif self._recording:
            self.samples.append(self._sample_of(shot))
            if self._no_more and not self._unanswered:
                self._all_ended.set()

    def _sample_of(self, shot: Shot) -> Sample:
        made_after = nan
        if shot.made_ms:
            made_after = shot.made_ms / 1000 - (shot.intended + self._wall_minus_monotonic)
        return Sample(
            at=shot.intended - self._begin,
            latency=self._now() - shot.intended,
            post=shot.post,
            status=0 if shot.error else shot.status,
            source=shot.source,
            made_after=made_after,
            error=shot.error,
            target=shot.target,
        )

    # Time

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._now()
            self._end_late(now - self._plan.timeout_s)
            while self._idle and self._idle[0].idle_since < now - IDLE_MAX_S:
                self._idle.pop(0).close()

    def _end_late(self, intended_before: float) -> None:
        watched = self._watched
        while watched and (watched[0].done or watched[0].intended < intended_before):
            shot = watched.popleft()
            if shot.done:
                continue
            if shot.connection is not None:
                self._open.discard(shot.connection)
                shot.connection.close()
            self._end(shot, "timeout")

    async def _tell(self, on_second: Callable[[int, Summary], None] | None) -> None:
        if on_second is None:
            return
        reported = 0
        for second in range(1, REQUESTS_MAX):
            await asyncio.sleep(max(0.0, self._begin + second - self._now()))
            fresh_ones = self.samples[reported:]
            reported = len(self.samples)
            on_second(second, summarize(fresh_ones, 1.0))

    # Bytes

    def _get_wire(self, target: str, netloc: str) -> bytes:
        return f"GET {target} HTTP/1.1\r\nHost: {netloc}\r\n{_BROWSER}\r\n".encode()

    def _post_wire(self, netloc: str) -> bytes:
        body = self._plan.post_body
        return (
            f"POST {self._plan.post_target} HTTP/1.1\r\nHost: {netloc}\r\n{_BROWSER}"
            f"Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
        ).encode()
