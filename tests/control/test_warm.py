"""`retter warm`: what is visited, in which order, and when it gives way."""

import contextlib
import gzip
import http.client
import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.cli import main
from retter.config.units import ListenAddress, parse_listen
from retter.control import site, warm
from retter.control.warm import Page, Result, Warmer, has_room
from retter.http.variants import VariantRules

HOST = "http://shop.example"

CALM: dict[str, Any] = {
    "state": "CLOSED", "paused": False, "draining": False, "in_flight": 0, "limit": 8.0,
}  # fmt: skip

SITEMAP = b"""<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
  <url><loc> http://shop.example/a?x=1&amp;y=2 </loc><lastmod>2026-01-01</lastmod></url>
  <url><loc>http://shop.example/b</loc><image><loc>http://shop.example/b.png</loc></image></url>
  <url><loc>http://other.example/c</loc></url>
</urlset>"""


def html(*links: str) -> Page:
    body = "".join([f'<a href="{link}">.</a>' for link in links])
    return Page(200, "text/html", "", body.encode())


class Site:
    """Pages by path; whatever is not there is missing."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.requested: list[str] = []

    def fetch(self, url: str) -> Page:
        path = url.removeprefix(HOST)
        self.requested.append(path)
        return self.pages.get(path, Page(404, "text/html", "", b""))


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(
    pages: dict[str, Page],
    start: str = "/",
    most: int = 100,
    states: Callable[[], Any] = lambda: CALM,
    seconds: float = 600.0,
) -> tuple[Result, list[str]]:
    there, time = Site(pages), Time()
    warmer = Warmer(there.fetch, states, lambda *_: None, time.sleep, lambda: time.now)
    return warmer.run(HOST + start, most, seconds), there.requested


# Where it goes


def test_links_are_followed_breadth_first_and_each_page_is_requested_once() -> None:
    pages = {"/": html("/a", "b", "/a#top"), "/a": html("/", "/c"), "/b": html("/a"), "/c": html()}
    result, requested = run(pages)
    assert requested == ["/", "/a", "/b", "/c"]
    assert (result.good, result.failed, result.reason) == (4, 0, "")


def test_no_more_pages_are_requested_than_were_asked_for() -> None:
    assert run({"/": html("/a", "/b", "/c"), "/a": html()}, most=2)[1] == ["/", "/a"]


def test_what_could_change_something_or_has_no_end_is_not_followed() -> None:
    links = ["/list?page=2", "/user/logout", "mailto:a@b", "javascript:void(0)", "http://["]
    page = Page(200, "text/html", "", html(*links).body + b'<a rel="nofollow" href="/vote">.</a>')
    assert run({"/": page})[1] == ["/"]


def test_links_to_other_hosts_are_counted_and_not_followed() -> None:
    result, requested = run({"/": html("http://other.example/", "//cdn.example/x", "/a")})
    assert requested == ["/", "/a"]
    assert result.elsewhere == 2


def test_a_redirect_is_followed_within_the_site() -> None:
    pages = {"/old": Page(301, "text/html", "/new", b""), "/new": html()}
    assert run(pages, "/old")[1] == ["/old", "/new"]


@pytest.mark.parametrize("body", [SITEMAP, gzip.compress(SITEMAP)])
def test_the_urls_of_a_sitemap_are_requested_with_their_queries(body: bytes) -> None:
    pages = {"/sitemap.xml": Page(200, "application/xml", "", body)}
    result, requested = run(pages, "/sitemap.xml")
    assert requested == ["/sitemap.xml", "/a?x=1&y=2", "/b"]
    assert result.elsewhere == 1


def test_a_location_that_is_no_url_is_passed_over() -> None:
    sitemap = b"<urlset><url><loc>http://[</loc></url><url><loc>http://shop.example/b</loc></url></urlset>"
    pages = {"/s.xml": Page(200, "text/xml", "", sitemap), "/b": Page(301, "", "http://[", b"")}
    assert run(pages, "/s.xml")[1] == ["/s.xml", "/b"]


def test_an_index_leads_to_its_sitemaps() -> None:
    index = (
        b"<sitemapindex xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>"
        b"<sitemap><loc>http://shop.example/s1.xml</loc></sitemap></sitemapindex>"
    )
    pages = {"/i.xml": Page(200, "text/xml", "", index),
             "/s1.xml": Page(200, "text/xml", "", SITEMAP)}  # fmt: skip
    assert run(pages, "/i.xml")[1] == ["/i.xml", "/s1.xml", "/a?x=1&y=2", "/b"]


def test_a_sitemap_with_entities_is_refused() -> None:
    bomb = b"<!DOCTYPE urlset [<!ENTITY a 'aaaa'>]><urlset><url><loc>&a;</loc></url></urlset>"
    with pytest.raises(site.NotASitemap, match="document type"):
        site.locations(bomb)
    result = run({"/s.xml": Page(200, "text/xml", "", bomb)}, "/s.xml")[0]
    assert result.failures == [
        f"{HOST}/s.xml: not a sitemap: it has a document type, which no sitemap needs"
    ]


def test_elements_within_each_other_are_not_followed_down() -> None:
    """Each of three million in 10 MB would be compared with all that it stands in."""
    with pytest.raises(site.NotASitemap, match="nested too deeply"):
        site.locations(b"<urlset>" + b"<a>" * 100_000)
    extended = b"<urlset><url><loc>/a</loc>" + b"<x>" * 20 + b"</x>" * 20 + b"</url></urlset>"
    assert site.locations(extended) == ["/a"]


def test_a_small_gzip_file_is_not_unfolded_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "DOCUMENT_BYTES_MAX", 1000)
    assert len(site.unpacked(gzip.compress(b"<urlset>" + b" " * 100_000))) == 1000
    assert site.unpacked(b"\x1f\x8bno gzip") == b""


@given(st.binary())
def test_any_bytes_are_a_sitemap_or_not(body: bytes) -> None:
    with contextlib.suppress(site.NotASitemap):
        assert all(site.locations(body))


@given(st.text(), st.text())
def test_any_text_has_links_or_none(page: str, link: str) -> None:
    for found in site.links(f'{page}<a href="{link}">', HOST):
        assert "?" not in found.partition("#")[0]


@given(st.lists(st.text()))
def test_a_walk_visits_only_its_host_and_nothing_twice(urls: list[str]) -> None:
    walk = site.Walk(f"{HOST}/", 50)
    for url in urls:
        walk.add(f"{HOST}/{url}" if len(url) % 2 else url)
    visited = list(iter(walk.next, None))
    assert len(visited) == len(set(visited)) <= 50
    assert all(url.startswith(f"{HOST}/") for url in visited)


# When it gives way


@pytest.mark.parametrize(
    ("changes", "room"),
    [
        ({}, True),
        ({"in_flight": 3}, True),
        ({"in_flight": 4}, False),
        ({"limit": 1.0}, True),
        ({"limit": 1.0, "in_flight": 1}, False),
        ({"limit": None}, True),
        ({"state": "LIMITING"}, False),
        ({"state": "OPEN"}, False),
        ({"paused": True}, False),
        ({"draining": True}, False),
    ],
)
def test_there_is_room_below_half_of_the_limit_of_a_closed_circuit(
    changes: dict[str, Any], room: bool
) -> None:
    assert has_room(CALM | changes) is room


def test_it_waits_while_the_application_is_busy() -> None:
    states = iter([CALM, CALM | {"state": "LIMITING"}, CALM | {"in_flight": 7}, CALM])
    result, requested = run({"/": html("/a"), "/a": html()}, states=lambda: next(states))
    assert requested == ["/", "/a"]
    assert result.waited_s == 2 * warm.BUSY_POLL_S


def test_pages_are_counted_when_all_workers_have_told_what_they_have() -> None:
    waited: list[float] = []
    states = iter([CALM | {"workers": [], "store": 1}, CALM | {"store": 2}, CALM])
    assert warm.state_at_the_end(lambda: next(states), waited.append)["store"] == 2
    assert waited == [warm.WORKERS_LATE_S]
    assert warm.state_at_the_end(lambda: next(states), waited.append) is CALM, "one process"
    assert len(waited) == 1


def test_it_ends_when_its_time_is_over() -> None:
    result, requested = run({}, states=lambda: CALM | {"state": "OPEN"}, seconds=30)
    assert requested == []
    assert result.reason == "the time is over"


def test_it_ends_when_nothing_works() -> None:
    links = [f"/{n}" for n in range(50)]
    result, requested = run({"/": html(*links)})
    assert len(requested) == 1 + warm.FAILURES_MAX
    assert (result.good, result.failed) == (1, warm.FAILURES_MAX)
    assert len(result.failures) == warm.FAILURES_NAMED_MAX
    assert result.failures[0] == f"{HOST}/0: status 404"
    assert "in a row failed" in result.reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionRefusedError(), "ConnectionRefusedError"),
        (http.client.BadStatusLine("x\x1b[31m\n"), "x?[31m "),
        (ValueError("Invalid IPv6 URL"), "Invalid IPv6 URL"),
    ],
)
def test_a_connection_that_fails_is_a_page_that_failed_and_says_why(
    error: Exception, said: str
) -> None:
    def fetch(url: str) -> Page:
        raise error

    warmer = Warmer(fetch, lambda: CALM, lambda *_: None)
    result = warmer.run(f"{HOST}/", 5, 60)
    assert (result.failed, result.failures) == (1, [f"{HOST}/: {said}"])


# What is sent


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"], self.headers["X-Forwarded-Proto"]))
        body = b'<a href="/next">'
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.path == "/next"  # without saying so

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def application() -> Iterator[ListenAddress]:
    Application.seen = []
    server = HTTPServer(("127.0.0.1", 0), Application)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield parse_listen(f"127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_host_is_that_of_the_url_wherever_it_is_sent(application: ListenAddress) -> None:
    visitor = warm.Visitor(application)
    assert visitor.fetch("https://shop.example/next?a=b").status == 200
    assert visitor.fetch("http://shop.example").body == b'<a href="/next">'
    assert visitor.fetch("http://shop.example/K\u00e4se?a=%20\u00fc").status == 200
    visitor.close()
    assert Application.seen == [
        ("/next?a=b", "shop.example", "https"),
        ("/", "shop.example", None),
        ("/K%C3%A4se?a=%20%C3%BC", "shop.example", None),
    ]


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def broken() -> Iterator[tuple[ListenAddress, list[bytes]]]:
    """An application that sends the next of these texts, and no more; `:` at its end never ends."""
    texts: list[bytes] = []
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(65_536):
                text = texts.pop(0)
                connection.sendall(text)
                while text.endswith(b":") and not ended.wait(0.001):
                    connection.sendall(b":\n")

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                talk(listener.accept()[0])

    thread = threading.Thread(target=serve)
    thread.start()
    yield parse_listen(f"127.0.0.1:{listener.getsockname()[1]}"), texts
    ended.set()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", ANSWER[:-1]])
def test_a_page_after_one_that_came_too_late_is_requested_on_a_new_connection(
    broken: tuple[ListenAddress, list[bytes]], start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "TIMEOUT_S", 0.05)
    address, texts = broken
    texts += [start, ANSWER]
    visitor = warm.Visitor(address)
    with pytest.raises(TimeoutError):
        visitor.fetch(f"{HOST}/slow")
    assert visitor.fetch(f"{HOST}/next").body == b"ok"
    visitor.close()


def test_a_page_that_never_ends_is_left(
    broken: tuple[ListenAddress, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event stream sends something now and then, each time soon enough."""
    monkeypatch.setattr(warm, "PAGE_S", 0.05)
    address, texts = broken
    texts += [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:", ANSWER]
    visitor = warm.Visitor(address)
    with pytest.raises(TimeoutError, match="no whole answer"):
        visitor.fetch(f"{HOST}/events")
    assert visitor.fetch(f"{HOST}/next").body == b"ok"
    visitor.close()


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        visitor = warm.Visitor(ListenAddress("tcp", "127.0.0.1", unused.getsockname()[1]))
        with pytest.raises(OSError, match="refused"):
            visitor.fetch(f"{HOST}/")
    with pytest.raises(OSError, match="No such file"):
        warm.Visitor(ListenAddress("unix", path=os.path.relpath(tmp_path / "no"))).fetch(f"{HOST}/")


def test_what_is_stored_by_it_is_what_a_browser_is_shown() -> None:
    rules = VariantRules()
    browser = (
        (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
        (b"sec-fetch-dest", b"document"),
        (b"upgrade-insecure-requests", b"1"),
    )
    sent = tuple([(name.lower().encode(), value.encode()) for name, value in warm.FIELDS.items()])
    assert rules.variant_key(sent) == rules.variant_key(browser)


# What is said


def test_the_report_says_what_was_done_and_what_is_stored() -> None:
    before, after = {"entries": 3, "bytes": 10}, {"entries": 1203, "bytes": 2 << 20}
    result = Result(
        1200, 3, ["http://a/x: status 500", "http://a/y: timed out"], 7, 62.0, "the time is over"
    )
    assert warm.report(result, before, after) == (
        "1,203 pages requested: 1,200 good, 3 failed; waited 1 min 2 s for a busy application\n"
        "failed: http://a/x: status 500\n"
        "failed: http://a/y: timed out\n"
        "and 1 more\n"
        "7 links to other hosts were not followed\n"
        "the store has 1,203 responses (2.0 MiB), 1,200 more than before\n"
        "ended early: the time is over\n"
    )


def test_progress_is_for_terminals_alone() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        progress = warm.Progress(stream)
        progress.show(3, 9, True)
        progress.end()
    assert terminal.getvalue().startswith("\r3 pages requested, 9 more known, waiting")
    assert terminal.getvalue().endswith("\n")
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["shop"], "is not a URL"),
        (["http://"], "is not a URL"),
        (["http://a:x/"], "is not a URL"),
        (["http://a/", "--pages", "0"], "not a whole number from 1 to"),
        (["http://a/", "--through", "http://b"], "is a URL"),
        (["http://a/", "--for", "soon"], "not a duration"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["warm", *arguments]) == 2
    assert complaint in capsys.readouterr().err
