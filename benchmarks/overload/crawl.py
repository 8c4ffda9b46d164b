"""Visitors beside a crawler, over real sockets, with addresses of their own: `make crawl`.

    python -m benchmarks.overload.crawl [--peer NAME ...] [--addresses N] [--times X]

The shop has 4 places of 100 ms: 40 pages a second, so that this program keeps up. Sixty visitors,
each with an address of 127.0.0.0/8 and a cookie jar, together ask for 0.4 times that; one page in
twenty was never asked for before. Who is told to wait by `Refresh` or `Retry-After` comes again.
Then a crawler comes, from so many addresses, for pages that nobody has asked for. What a visitor
gets is fresh if the shop made it after the visitor asked (X-Gen), so all peers are measured alike.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.overload.peers import (
    Haproxy,
    Nginx,
    Peer,
    Process,
    Retter,
    StartFailed,
    Varnish,
    cores,
    free_port,
)
from retter.demo.load_generator import percentile

PLACES: Final = 4
SERVICE_MS: Final = 100
CAPACITY: Final = PLACES * 1000 / SERVICE_MS
VISITORS: Final = 60
VISITORS_SHARE: Final = 0.4
NEW_SHARE: Final = 0.05  # of the visitors' pages were never asked for
PAGES: Final = 100
TIMEOUT_S: Final = 10.0
TRIES_MAX: Final = 8
ALONE_S: Final = 6.0  # before the crawler comes
OPEN_MAX: Final = 6000  # connections at once; a request above it counts as an error


class RetterOff(Retter):
    """RETTER with one line for all."""

    name = "retter --fairness off"
    about = "one line for all"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Return its command line."""
        command = super().command(listen, application, folder, workers=workers)
        return (*command, "--fairness", "off")


class NginxLimited(Nginx):
    """The same, with five requests a second for each address, as its manual recommends."""

    name = "nginx"
    about = "proxy_cache 1 s, use_stale; limit_req 5r/s burst=20 nodelay by address"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write nginx.conf."""
        command = super().command(listen, application, folder, workers=workers)
        path = folder / "nginx.conf"
        text = path.read_text()
        zone = "limit_req_zone $binary_remote_addr zone=one:10m rate=5r/s;\nupstream application"
        text = text.replace("upstream application", zone)
        text = text.replace(
            "location / {", "location / {\n    limit_req zone=one burst=20 nodelay;"
        )
        path.write_text(text)
        return command


class HaproxyLimited(Haproxy):
    """The same, refusing addresses with more than fifty requests in ten seconds."""

    name = "haproxy"
    about = "maxconn as the application has places; stick table: 429 above 50 in 10 s by address"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write haproxy.cfg."""
        command = super().command(listen, application, folder, workers=workers)
        path = folder / "haproxy.cfg"
        rules = (
            "    stick-table type ip size 100k expire 30s store http_req_rate(10s)\n"
            "    http-request track-sc0 src\n"
            "    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 50 }\n"
            "    server application"
        )
        path.write_text(path.read_text().replace("    server application", rules))
        return command


PEERS: Final[tuple[Peer, ...]] = (
    Retter(), RetterOff(), NginxLimited(), HaproxyLimited(), Varnish(),
)  # fmt: skip


@dataclass
class Counts:
    """What came of the requests of one kind of client."""

    fresh: int = 0
    stored: int = 0
    errors: int = 0
    took_s: list[float] = field(default_factory=list)

    @property
    def all(self) -> int:
        """How many there were."""
        return self.fresh + self.stored + self.errors

    def share(self, count: int) -> float:
        """Return some of them in per cent."""
        return 100 * count / max(1, self.all)


@dataclass(frozen=True, slots=True)
class Got:
    """An answer, as far as it matters here."""

    status: int
    made_ms: float
    wait_s: float  # until the client is to come again
    cookies: tuple[str, ...]


NOTHING: Final = Got(0, 0.0, 0.0, ())


class Crowd:
    """Visitors and a crawler in front of one port."""

    def __init__(self, port: int, addresses: int, times: float, seconds: float) -> None:
        self._port = port
        self._addresses = addresses
        self._times = times
        self._end_s = ALONE_S + seconds
        self._rng = Random(1)
        self._jars: list[dict[str, str]] = [{} for _ in range(VISITORS)]
        self._new = 0
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.alone = Counts()
        self.beside = Counts()
        self.crawler = Counts()
        self.seconds: list[Counts] = [Counts() for _ in range(int(self._end_s + TIMEOUT_S) + 60)]

    async def run(self, *, show: bool) -> None:
        """Let them all ask, to the end."""
        for page in range(PAGES):
            await self._ask("127.9.9.9", f"/product/{page + 1}", {})
        began = time.monotonic()
        streams = [
            self._stream(began, 0.0, VISITORS_SHARE * CAPACITY, self._visitor),
            self._stream(began, ALONE_S, self._times * CAPACITY, self._crawl),
        ]
        if show:
            streams.append(self._show(began))
        await asyncio.gather(*streams)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TIMEOUT_S)
        for task in self._tasks:
            task.cancel()

    async def _stream(self, began: float, at_s: float, rate: float, one: object) -> None:
        """Begin requests by the clock (open loop), whatever becomes of them."""
        assert callable(one)
        while at_s < self._end_s:
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            task: asyncio.Task[None] = asyncio.create_task(one(at_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            at_s += self._rng.expovariate(rate)

    async def _visitor(self, at_s: float) -> None:
        who = self._rng.randrange(VISITORS)
        page = f"/product/{1 + self._rng.randrange(PAGES)}"
        if self._rng.random() < NEW_SHARE:
            self._new += 1
            page += f"?never={self._new}"
        began, jar = time.monotonic(), self._jars[who]
        address = f"127.1.{who // 200}.{1 + who % 200}"
        counts = self.alone if at_s < ALONE_S else self.beside
        of_second = self.seconds[int(at_s)]
        for _ in range(TRIES_MAX):
            asked_ms = time.time() * 1000
            got = await self._ask(address, page, jar)
            if got.status == 200:
                fresh = got.made_ms >= asked_ms - 2
                for one in (counts, of_second):
                    one.fresh += fresh
                    one.stored += not fresh
                    one.took_s.append(time.monotonic() - began)
                return
            if not got.wait_s:
                break
            await asyncio.sleep(got.wait_s)
        for one in (counts, of_second):
            one.errors += 1
            one.took_s.append(time.monotonic() - began)

    async def _crawl(self, at_s: float) -> None:
        self._new += 1
        number = self._rng.randrange(self._addresses)
        address = f"127.{2 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
        got = await self._ask(address, f"/product/1?crawled={self._new}", {})
        if got.status == 200:
            self.crawler.fresh += 1
        else:
            self.crawler.errors += 1

    async def _ask(self, address: str, target: str, jar: dict[str, str]) -> Got:
        if self._open >= OPEN_MAX:
            return NOTHING
        self._open += 1
        try:
            return await asyncio.wait_for(self._exchange(address, target, jar), TIMEOUT_S)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            return NOTHING
        finally:
            self._open -= 1

    async def _exchange(self, address: str, target: str, jar: dict[str, str]) -> Got:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(address, 0)
        )
        try:
            cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
            line = f"Cookie: {cookies}\r\n" if cookies else ""
            writer.write(
                f"GET {target} HTTP/1.1\r\nHost: shop.example\r\nAccept: text/html\r\n{line}"
                "Connection: close\r\n\r\n".encode()
            )
            answer = await reader.read(-1)
        finally:
            writer.close()
        got = _read(answer)
        for cookie in got.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            jar[name] = value
        return got

    async def _show(self, began: float) -> None:
        """Print what the visitors of each second have got, when it is known."""
        for second in range(int(self._end_s)):
            await asyncio.sleep(max(0.0, began + second + 1.5 - time.monotonic()))
            one = self.seconds[second]
            bar = "".join(
                sign * round(one.share(count) / 2.5)
                for sign, count in (("#", one.fresh), ("-", one.stored), ("!", one.errors))
            )
            crawled = "  crawled" if second >= ALONE_S else ""
            sys.stdout.write(f"{second:4} s |{bar:40}|{crawled}\n")
            sys.stdout.flush()


def _read(answer: bytes) -> Got:
    """Read an answer. Raises ValueError."""
    head, found, _ = answer.partition(b"\r\n\r\n")
    if not found:
        raise ValueError("cut off")
    first, *lines = head.split(b"\r\n")
    made_ms = wait_s = 0.0
    cookies: list[str] = []
    for line in lines:
        name, _, value = line.partition(b":")
        text = value.strip().decode("latin-1")
        match name.lower():
            case b"x-gen":
                made_ms = float(text)
            case b"refresh" | b"retry-after":
                wait_s = max(wait_s, float(text.partition(";")[0]))
            case b"set-cookie":
                cookies.append(text)
            case _:
                pass
    return Got(int(first.split()[1]), made_ms, wait_s, tuple(cookies))


async def trial(peer: Peer, options: argparse.Namespace) -> Crowd:
    """Start the shop and one peer, let the crowd come, and stop them. Raises StartFailed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop = Process(
            (
                sys.executable, "-m", "retter.demo", "--listen", "127.0.0.1:0",
                "--connections", str(PLACES), "--service-ms", str(SERVICE_MS),
            ),
            core=cores()[1], log=folder / "shop.log",
        )  # fmt: skip
        front: Process | None = None
        try:
            application = int(shop.wait_for_lines(1)[0].rpartition(":")[2])
            listen = free_port()
            command = peer.command(listen, application, folder, workers=PLACES)
            front = Process(command, core=cores()[0], log=folder / "peer.log")
            front.wait_for_port(listen)
            crowd = Crowd(listen, options.addresses, options.times, options.seconds)
            await crowd.run(show=options.show)
            return crowd
        finally:
            if front is not None:
                front.stop()
            shop.stop()


def _row(peer: Peer, crowd: Crowd, seconds: float) -> str:
    one = crowd.beside
    p99_s = percentile(sorted(one.took_s), 0.99) if one.took_s else 0.0
    share = 100 * crowd.crawler.fresh / (CAPACITY * seconds)
    return (
        f"| {peer.name} | {one.share(one.fresh):.0f} % | {one.share(one.stored):.0f} % "
        f"| {one.share(one.errors):.1f} % | {p99_s:.2f} s | {share:.0f} % |"
    )


def main() -> int:
    """Run the chosen peers one after the other, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload.crawl")
    add = parser.add_argument
    add("--peer", action="append", choices=[peer.name for peer in PEERS], help="repeatable")
    add("--addresses", type=int, default=20, help="of the crawler (default 20)")
    add("--times", type=float, default=4.0, help="the capacity is what it asks for (default 4)")
    add("--seconds", type=float, default=15.0, help="for so long (default 15)")
    add("--show", action="store_true", help="print what visitors get, second by second")
    options = parser.parse_args()
    rows: list[str] = []
    for peer in PEERS:
        if peer.name not in (options.peer or [peer.name]) or not peer.installed():
            continue
        sys.stdout.write(
            f"\n{peer.name} ({peer.about}); # fresh, - stored, ! error, of the visitors\n"
            if options.show
            else f"{peer.name} ...\n"
        )
        try:
            crowd = asyncio.run(trial(peer, options))
        except StartFailed as error:
            sys.stdout.write(f"{peer.name} did not start: {error}\n")
            continue
        rows.append(_row(peer, crowd, options.seconds))
    sys.stdout.write(
        f"\nA crawler at {options.times:g} times the capacity, from {options.addresses} "
        "addresses\n\n"
        "| in front of the shop | visitors fresh | stored | errors | p99 | crawler's share |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
