"""The cost of forwarding, in instructions of the interpreter.

The bounds are some hundredths above what CPython 3.11 takes; later ones take fewer, and compiled
code next to none. Whoever makes one of these requests dearer sees it here, on any machine. What is
worth it raises the bound, and docs/performance.md says what it is worth.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from retter.config.settings import Settings
from retter.disk.opening import open_shelf
from tests.support.disk import Clock, Immediately, Later, disk_settings
from tests.support.far import FakeServer, shelf_of
from tests.support.harness import FakePeer, FakeProxy, field, get, reply
from tests.support.site_of_workers import SiteOfWorkers
from tests.support.work import instructions_of

# As a browser sends them, with a place for what differs from request to request.
PAGE = (
    "GET /articles/{n}/autumn-coats?page=2&sort=price&v={n} HTTP/1.1\r\n"
    "Host: shop.example\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Referer: https://shop.example/articles/{n}/?page=1\r\n"
    "Cookie: PHPSESSID=5f2b1c9a7e4d3f6b8a{n}; _ga=GA1.2.{n}.1731500000; theme=dark\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "Connection: keep-alive\r\n\r\n"
)
BODY = b"x" * 10 * 1024
FORM = (
    "POST /articles/7/comments HTTP/1.1\r\n"
    "Host: shop.example\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
    "Cookie: PHPSESSID=5f2b1c9a7e4d3f6b8a000000001\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY
ANSWER = reply(b"y" * 1024, headers={"Content-Type": "text/html", "Cache-Control": "max-age=60"})

# Requests before those that are counted: the forms of heads are known then, and what routes take.
WARMING = 128
COUNTED = 16  # the breaker learns from several answers at a time
# What that saves. A worker that does not lead tells the leader of each answer at once.
LEARNT_LATER = 145


def page(number: int) -> bytes:
    return PAGE.format(n=f"{number:09}").encode()


def cost(
    request_of: Callable[[int], bytes],
    proxy: FakeProxy | None = None,
    **settings: Any,
) -> int:
    """Return how many instructions a request takes that is forwarded and answered."""
    proxy = proxy or FakeProxy(compress=(), **settings)
    client: FakePeer = proxy.client()
    breaker = proxy.services.breaker

    def forward(request: bytes) -> None:
        client.protocol.data_received(request)
        proxy.upstream.protocol.data_received(ANSWER)

    for number in range(WARMING):
        proxy.loop.now += 0.001
        forward(request_of(number))
    breaker.settle()
    client.received()
    total = 0
    for number in range(WARMING, WARMING + COUNTED):
        request = request_of(number)
        client.received()
        total += instructions_of(partial(forward, request))
        assert field(client.received(), "content-type") == "text/html"
    total += instructions_of(breaker.settle)
    assert len(proxy.upstreams) == 1
    return total // COUNTED


def test_a_head_that_comes_again() -> None:
    assert cost(lambda _: page(1)) <= 1640


def test_a_head_that_was_never_seen() -> None:
    """Another path, query, session, cookie and Referer each time."""
    assert cost(page) <= 3400


def test_a_page_that_programs_read_too() -> None:
    """What is stored for these is of another variant: to see that is all that it costs."""
    proxy = FakeProxy(compress=())
    program = proxy.client()

    def after_a_program(number: int) -> bytes:
        target = page(number).split(b" ", 2)[1].decode()
        program.sends(get(target, headers={"Accept": "application/json"}))
        proxy.upstream.sends(ANSWER)
        proxy.services.breaker.settle()
        return page(number)

    assert cost(after_a_program, proxy) <= cost(page) + 215


def test_a_form() -> None:
    assert cost(lambda _: FORM) <= 2600


def with_disk(path: Path) -> FakeProxy:
    clock: list[Any] = []
    settings = disk_settings(path, compress=())
    disk = open_shelf(
        settings, Immediately(), Immediately(), lambda: clock[0].now if clock else 1000.0
    )
    proxy = FakeProxy(settings, disk)
    clock.append(proxy.loop)
    return proxy


def test_an_unchanged_page_before_a_disk(tmp_path: Path) -> None:
    """It is in memory and on disk already: the bar is 3 %."""
    proxy = with_disk(tmp_path)
    assert cost(lambda _: page(1), proxy) <= 1.03 * cost(lambda _: page(1))
    proxy.proxy.close()


def test_an_unchanged_page_with_another_date(tmp_path: Path) -> None:
    """Most applications send one each second. The disk need not know of it: the bar is 3 %."""
    found: list[int] = []
    for proxy in (FakeProxy(compress=()), with_disk(tmp_path)):
        client = proxy.client()
        for second in range(WARMING):
            date = f"Tue, 01 Dec 2026 01:00:{second % 60:02} GMT"
            answer = reply(b"y" * 1024, headers={"Content-Type": "text/html", "Date": date})
            proxy.loop.now += 1.0
            client.protocol.data_received(page(1))
            count = instructions_of(partial(proxy.upstream.protocol.data_received, answer))
        found.append(count)
        assert proxy.services.store.stats()["unchanged"] >= WARMING - 5
        proxy.proxy.close()
    assert found[1] <= 1.03 * found[0], found


def test_a_new_page_before_a_disk(tmp_path: Path) -> None:
    """Neither the visitor's page nor everyone's is on disk. It is noted here, and written later."""
    proxy = with_disk(tmp_path)
    assert cost(page, proxy) <= cost(page) + 1100
    proxy.proxy.close()


def beside_other_boxes(how: str = "silent") -> FakeProxy:
    """Return one box, whose threads work when the test lets them.

    Args:
        how: The server: `well`, `away`, `full`, or `silent`, where an answer never comes.
    """
    clock = Clock()
    server, reader, writer = FakeServer(clock), Later(), Later()
    far = shelf_of(server, clock, "one", reader=reader, writer=writer)
    proxy = FakeProxy(Settings(upstream="127.0.0.1:8080", compress=()), far=far)
    server.trouble = "connection refused" if how == "away" else ""
    server.refuses = frozenset(["XADD", "ZADD", "SET"] if how == "full" else [])
    for _ in range(20):
        clock.now += 0.25
        far.tick(clock.now)
        if how != "silent":
            writer.work()
            reader.work()
    assert far.is_in_touch == (how == "well")
    return proxy


def test_an_unchanged_page_that_boxes_share() -> None:
    """Nothing of it is told again: the bar is 3 %."""
    assert cost(lambda _: page(1), beside_other_boxes()) <= 1.03 * cost(lambda _: page(1))


def test_a_new_page_that_boxes_share() -> None:
    """Its keys are noted, the visitor's and everyone's, and a thread does the rest."""
    assert cost(page, beside_other_boxes()) <= cost(page) + 500


def one_of_two_workers(index: int) -> FakeProxy:
    site = SiteOfWorkers(lambda _: b"", compress=())
    site.proxy.advance(0.2)
    for proxy in site.crew:
        proxy.services.write_batch.gathers = False  # as after a step with few messages
    return site.crew[index]


@pytest.mark.parametrize("index", [0, 1])
def test_one_of_two_workers(index: int) -> None:
    """It looks at the other one's numbers, and writes its own."""
    alone = cost(lambda _: page(1)) + LEARNT_LATER
    assert cost(lambda _: page(1), one_of_two_workers(index)) <= alone + 215


@pytest.mark.parametrize("index", [0, 1])
def test_a_form_for_one_of_two_workers(index: int) -> None:
    """It tells the other one what has changed."""
    alone = cost(lambda _: FORM) + LEARNT_LATER
    assert cost(lambda _: FORM, one_of_two_workers(index)) <= alone + 1200


@pytest.mark.parametrize("request_of", [lambda _: page(1), page], ids=["unchanged", "new"])
def test_a_request_costs_the_same_whatever_the_server_does(
    request_of: Callable[[int], bytes],
) -> None:
    """The server is on the way of no request, so nobody can be late because of it."""
    costs: dict[str, int] = {}
    for how in ("well", "away", "full", "silent"):
        proxy = beside_other_boxes(how)
        far = proxy.services.far
        assert far is not None
        threads: Any = far.reads._thread, far._writer
        before = [len(thread.jobs) for thread in threads]
        costs[how] = cost(request_of, proxy)
        assert [len(thread.jobs) for thread in threads] == before, "no request asks a thread"
        assert far.reads.reads == 0
    assert max(costs.values()) <= 1.01 * min(costs.values()), costs
