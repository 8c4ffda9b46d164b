"""The crowd beside a crawler, over sockets: what it reads, and that it asks by the clock."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.overload import crawl, crawl_crowd
from benchmarks.overload.crawl_crowd import Counts, Crowd, Got, Plan
from benchmarks.overload.crawl_peers import PEERS, against_crawlers
from benchmarks.overload.crawl_picture import picture
from benchmarks.overload.peers import PEERS as USUAL
from benchmarks.overload.scenarios import SCENARIOS
from benchmarks.overload.trial import Trial

PLAN = Plan(alone_s=0.0, beside_s=0.2, visitors_rate=50.0, crawler_rate=50.0, addresses=20)
SCENARIO = next(one for one in SCENARIOS if one.crawlers)

Seen = list[tuple[str, bytes]]


def test_an_answer_is_read_as_far_as_it_matters() -> None:
    """Its status, when it was made, when to come again, and its cookies."""
    got = crawl_crowd.read(
        b"HTTP/1.1 503 Service Unavailable\r\nRefresh: 3\r\nRetry-After: 2\r\n"
        b"Set-Cookie: retter_turn=abc; Path=/\r\nX-Gen: 12.5\r\n\r\nbody"
    )
    assert got == Got(503, 12.5, 3.0, ("retter_turn=abc; Path=/",))
    with pytest.raises(ValueError, match="cut off"):
        crawl_crowd.read(b"HTTP/1.1 200 OK\r\n")


def with_shop(answers: Callable[[int], bytes], act: Callable[[Crowd], Awaitable[None]]) -> Seen:
    """Let a crowd act in front of a shop with these answers; return what was asked, by whom."""
    seen: Seen = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append((writer.get_extra_info("peername")[0], head))
        writer.write(answers(len(seen)))
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        await act(Crowd(server.sockets[0].getsockname()[1], PLAN))
        server.close()

    asyncio.run(ask())
    return seen


def test_who_is_told_to_wait_comes_again_with_its_cookie() -> None:
    """From its own address; a crawler takes what it gets."""
    told = b"HTTP/1.1 503 Wait\r\nRefresh: 0.01\r\nSet-Cookie: turn=1; Path=/\r\n\r\n"
    page = b"HTTP/1.1 200 OK\r\nX-Gen: 9e15\r\n\r\n"

    async def act(crowd: Crowd) -> None:
        await crowd._look("127.1.0.9", "/product/1", {}, [crowd.beside])
        await crowd.crawl(0.0)
        assert crowd.beside.fresh == 1
        assert crowd.crawler.fresh == 1

    seen = with_shop(lambda number: told if number == 1 else page, act)
    assert b"Cookie: turn=1" in seen[1][1]
    assert b"Cookie" not in seen[0][1]
    assert seen[0][0] == seen[1][0] == "127.1.0.9"
    assert seen[2][0].startswith("127.2.")


def test_what_the_visitors_got_is_counted() -> None:
    """Fresh, stored (made before they asked) or an error; and of POSTs that they were answered."""
    answers = {
        b"/product/1 ": b"HTTP/1.1 200 OK\r\nX-Gen: 9e15\r\n\r\n",
        b"/product/2 ": b"HTTP/1.1 200 OK\r\nX-Gen: 1\r\n\r\n",
        b"/product/3 ": b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    }

    async def act(crowd: Crowd) -> None:
        for page in (1, 2, 3):
            await crowd._look("127.1.0.1", f"/product/{page}", {}, [crowd.beside])
        one = crowd.beside
        assert (one.fresh, one.stored, one.errors) == (1, 1, 1)
        figures = crawl.figures_of(replace(SCENARIO, stress_s=10.0), crowd, 40.0)
        assert figures["visitors_fresh"] == pytest.approx(1 / 3)
        assert figures["crawler_share"] == 0.0

    order = list(answers.values())
    with_shop(lambda number: order[number - 1], act)


def test_some_visitors_begin_a_session_before_the_crawler_comes() -> None:
    """All requests are sent, also those that come after the answers of others are late."""
    page = b"HTTP/1.1 303 See Other\r\nSet-Cookie: PHPSESSID=abc; Path=/\r\n\r\n"
    told: list[Counts] = []

    async def act(crowd: Crowd) -> None:
        await crowd.run(lambda _, counts: told.append(counts))

    seen = with_shop(lambda _: page, act)
    posts = [head for _, head in seen if head.startswith(b"POST /cart/add ")]
    known = round(crawl_crowd.KNOWN_SHARE * crawl_crowd.VISITORS)
    assert len(posts) >= known
    first = crawl_crowd.PAGES + known
    assert {address for address, _ in seen[:first]} == {
        "127.9.9.9",
        *map(crawl_crowd.address_of, range(known)),
    }
    with_session = [head for _, head in seen[first:] if b"PHPSESSID=abc" in head]
    assert with_session
    assert any(b"crawled=" in head for _, head in seen[first:])


def test_each_peer_is_set_up_against_crawlers() -> None:
    """Each peer of the other scenarios has a counterpart here, with the same name."""
    for peer in USUAL:
        assert against_crawlers(peer).name == peer.name
        assert against_crawlers(peer) in PEERS


def test_the_table_has_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the peer is called."""
    figures: dict[str, float | None] = {name: 1.0 for name, _, _ in crawl.FIGURES}
    for peer in PEERS:
        trial = Trial(SCENARIO, peer.name, figures, {}, [])
        assert len(crawl._row(trial)) <= 80
    crawl_crowd.show_second(7, Counts(fresh=1, stored=1, errors=1), crawled=True)
    line = capsys.readouterr().out.rstrip("\n")
    assert len(line) <= 80
    assert line.count("#") == line.count("-") == 13


def test_two_runs_are_one_picture() -> None:
    """A line for each thing that visitors got, in each of the two."""
    seconds = [{"fresh": 3, "stored": 2, "trouble": 1, "posts": 0}] * 26
    trials = [Trial(SCENARIO, peer, {}, {}, seconds) for peer in ("one", "<two>")]
    svg = picture(trials)
    root = ElementTree.fromstring(svg)
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 6
    assert all(len(line.attrib["points"].split()) == 26 for line in lines)
    assert "one, a second" in svg
    assert "from 20 addresses, from 6 to 26 s" in svg
