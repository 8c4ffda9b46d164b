"""Visitors and a crawler as clients: addresses of 127.0.0.0/8, cookies, and coming again.

All ask by the clock, whatever becomes of their requests (open loop). A visitor keeps its cookies
(the shop's session, RETTER's ticket) and comes again when it is told to, by `Refresh` or
`Retry-After`. The crawler takes what it gets, and asks for pages that nobody has asked for.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

VISITORS: Final = 60
VISITORS_SHARE: Final = 0.4  # of the capacity is what they ask for
KNOWN_SHARE: Final = 0.6  # of them have put something into the cart: the shop knows them
NEW_SHARE: Final = 0.05  # of their pages were never asked for
POST_SHARE: Final = 0.1  # of the requests of those that have a cart
PAGES: Final = 100
WARMING: Final = 4  # pages at once before it begins: so few are no burden
TIMEOUT_S: Final = 10.0
TRIES_MAX: Final = 8
OPEN_MAX: Final = 6000  # connections at once; a request above it counts as an error

Ask = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long they come, and how many. Rates are requests a second."""

    alone_s: float  # the visitors, before the crawler comes
    beside_s: float  # both
    visitors_rate: float
    crawler_rate: float
    addresses: int  # of the crawler
    seed: int = 1

    @property
    def seconds(self) -> float:
        """How long requests begin."""
        return self.alone_s + self.beside_s


@dataclass
class Counts:
    """The results of the requests of one kind of client."""

    fresh: int = 0
    stored: int = 0
    errors: int = 0
    took_s: list[float] = field(default_factory=list[float])

    @property
    def all(self) -> int:
        """How many there were."""
        return self.fresh + self.stored + self.errors

    def share(self, count: int) -> float:
        """Return some of them as a share."""
        return count / max(1, self.all)


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

    def __init__(self, port: int, plan: Plan) -> None:
        self._port = port
        self._plan = plan
        self._rng = Random(plan.seed)
        self._jars: list[dict[str, str]] = [{} for _ in range(VISITORS)]
        self._new = 0
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.alone = Counts()
        self.beside = Counts()
        self.never_stored = Counts()  # of those beside the crawler, pages without a stored answer
        self.posts = Counts()
        self.crawler = Counts()
        self.late_s: list[float] = []  # by how much requests began after their time
        self.seconds: list[Counts] = [Counts() for _ in range(int(plan.seconds) + 1)]

    async def run(self, on_second: Callable[[int, Counts], None] | None = None) -> None:
        """Let them all ask, to the end."""
        plan = self._plan
        await self._prepare()
        began = time.monotonic()
        streams = [
            self._stream(began, 0.0, plan.visitors_rate, self.visitor),
            self._stream(began, plan.alone_s, plan.crawler_rate, self.crawl),
        ]
        if on_second is not None:
            streams.append(self._tell(began, on_second))
        await asyncio.gather(*streams)
        longest_s = TRIES_MAX * TIMEOUT_S
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=longest_s)
        for task in self._tasks:
            task.cancel()

    # --- before it begins ---

    async def _prepare(self) -> None:
        """Have the pages stored, and let the known visitors begin their sessions."""
        pages = [f"/product/{page}" for page in range(1, PAGES + 1)]
        await self._few_at_once(self._ask("127.9.9.9", page, {}) for page in pages)
        known = round(KNOWN_SHARE * VISITORS)
        await self._few_at_once(
            self._ask(address_of(who), "/cart/add", self._jars[who], post=True)
            for who in range(known)
        )

    @staticmethod
    async def _few_at_once(asks: Iterable[Awaitable[Got]]) -> None:
        free = asyncio.Semaphore(WARMING)

        async def one(ask: Awaitable[Got]) -> None:
            async with free:
                await ask

        await asyncio.gather(*map(one, asks))

    async def _stream(self, began: float, at_s: float, rate: float, ask: Ask) -> None:
        """Begin requests by the clock."""
        while at_s < self._plan.seconds:
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            self.late_s.append(time.monotonic() - began - at_s)
            task = asyncio.ensure_future(ask(at_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            at_s += self._rng.expovariate(rate)

    async def _tell(self, began: float, on_second: Callable[[int, Counts], None]) -> None:
        """Tell what the visitors of each second have got, a second and a half later."""
        for second in range(int(self._plan.seconds)):
            await asyncio.sleep(max(0.0, began + second + 2.5 - time.monotonic()))
            on_second(second, self.seconds[second])

    # --- one request ---

    async def visitor(self, at_s: float) -> None:
        """One of them asks for a page, or puts something into the cart."""
        who = self._rng.randrange(VISITORS)
        jar, beside = self._jars[who], at_s >= self._plan.alone_s
        if who < KNOWN_SHARE * VISITORS and self._rng.random() < POST_SHARE:
            got = await self._ask(address_of(who), "/cart/add", jar, post=True)
            self.posts.fresh += beside and got.status == 303
            self.posts.errors += beside and got.status != 303
            return
        page, kinds = f"/product/{1 + self._rng.randrange(PAGES)}", [self.seconds[int(at_s)]]
        kinds.append(self.beside if beside else self.alone)
        if self._rng.random() < NEW_SHARE:
            self._new += 1
            page += f"?never={self._new}"
            if beside:
                kinds.append(self.never_stored)
        await self._look(address_of(who), page, jar, kinds)

    async def _look(
        self, address: str, page: str, jar: dict[str, str], kinds: list[Counts]
    ) -> None:
        began = time.monotonic()
        for _ in range(TRIES_MAX):
            asked_ms = time.time() * 1000
            got = await self._ask(address, page, jar)
            if got.status == 200:
                fresh = got.made_ms >= asked_ms - 2
                for one in kinds:
                    one.fresh += fresh
                    one.stored += not fresh
                    one.took_s.append(time.monotonic() - began)
                return
            if not got.wait_s:
                break
            await asyncio.sleep(got.wait_s)
        for one in kinds:
            one.errors += 1
            one.took_s.append(time.monotonic() - began)

    async def crawl(self, at_s: float) -> None:
        """One of the crawler's addresses asks for a page that nobody has asked for."""
        self._new += 1
        number = self._rng.randrange(self._plan.addresses)
        address = f"127.{2 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
        got = await self._ask(address, f"/product/1?crawled={self._new}", {})
        if got.status == 200:
            self.crawler.fresh += 1
        else:
            self.crawler.errors += 1

    # --- the wire ---

    async def _ask(
        self, address: str, target: str, jar: dict[str, str], *, post: bool = False
    ) -> Got:
        if self._open >= OPEN_MAX:
            return NOTHING
        self._open += 1
        try:
            return await asyncio.wait_for(self._exchange(address, target, jar, post), TIMEOUT_S)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            return NOTHING
        finally:
            self._open -= 1

    async def _exchange(self, address: str, target: str, jar: dict[str, str], post: bool) -> Got:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(address, 0)
        )
        try:
            writer.write(_request(target, jar, post))
            answer = await reader.read(-1)
        finally:
            writer.close()
        got = read(answer)
        for cookie in got.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            jar[name] = value
        return got


def address_of(visitor: int) -> str:
    """Return the address of a visitor."""
    return f"127.1.{visitor // 200}.{1 + visitor % 200}"


def _request(target: str, jar: dict[str, str], post: bool) -> bytes:
    body = "product=7" if post else ""
    cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
    fields = "Accept: text/html\r\nConnection: close\r\n"
    if cookies:
        fields += f"Cookie: {cookies}\r\n"
    if post:
        fields += "Content-Type: application/x-www-form-urlencoded\r\n"
        fields += f"Content-Length: {len(body)}\r\n"
    method = "POST" if post else "GET"
    return f"{method} {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n{body}".encode()


def read(answer: bytes) -> Got:
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


def show_second(second: int, counts: Counts, *, crawled: bool) -> None:
    """Print what the visitors of a second have got, as a bar of 40 signs."""
    parts = (("#", counts.fresh), ("-", counts.stored), ("!", counts.errors))
    bar = "".join(sign * round(40 * counts.share(count)) for sign, count in parts)
    sys.stdout.write(f"{second:4} s |{bar[:40]:40}|{'  crawled' if crawled else ''}\n")
    sys.stdout.flush()
