"""The waiting page in a real browser: it comes, comes again without script, and gets its page."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from retter.proxy.waiting_page import WORDS, waiting_page
from tests.real.browser import chromium
from tests.real.processes import DEADLINE_S, RetterProgram, end_accepting, eventually
from tests.support.axe import axe_source
from tests.support.tracing import untraced

pytestmark = untraced

PAGE = b"<!doctype html><html lang=en><title>The shop</title><h1>The shop</h1>"


class Application:
    """Answers nothing until it is let go; remembers every request's head."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.free = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            while head := self._head(connection):
                self.heads.append(head)
                self.free.wait(30)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(PAGE), PAGE)
                )

    @staticmethod
    def _head(connection: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return b""
            head += data
        return head

    def close(self) -> None:
        self.free.set()
        end_accepting(self._server, self._thread)


def has_answer(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


@contextmanager
def full() -> Iterator[tuple[RetterProgram, Application]]:
    """Yield RETTER and an application whose one place is taken."""
    application = Application()
    retter = RetterProgram(
        *("--upstream", f"127.0.0.1:{application.port}"),
        *("--max-in-flight", "1", "--queue-wait", "200ms"),
    )
    try:
        with socket.create_connection(("127.0.0.1", retter.port)) as taken:
            taken.sendall(b"GET /takes-the-place HTTP/1.1\r\nHost: a\r\n\r\n")
            taken.setblocking(False)
            eventually(lambda: application.heads or has_answer(taken), "the place is taken")
            assert application.heads, (taken.recv(65536), retter.output)
            yield retter, application
        application.free.set()
        assert retter.stop() == 0
        assert retter.complaints() == []
    finally:
        retter.kill()
        application.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_visitor_waits_and_gets_the_page(scheme: str) -> None:
    """Without script, in German, on a phone; the application never sees the ticket."""
    with full() as (retter, application), chromium() as browser:
        context = browser.new_context(
            java_script_enabled=False,
            color_scheme=scheme,
            locale="de-DE",
            viewport={"width": 360, "height": 640},
        )
        page = context.new_page()
        response = page.goto(f"http://127.0.0.1:{retter.port}/page")
        assert response.status == 503
        assert response.headers["cache-control"] == "no-store"
        assert page.title() == WORDS["de"].title
        assert page.locator("h1").inner_text() == WORDS["de"].title
        assert page.get_by_role("progressbar", name=WORDS["de"].bar).count() == 1
        assert page.get_by_role("status").count() == 1
        assert page.locator("html").get_attribute("lang") == "de"
        (cookie,) = context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (
            "retter_turn",
            True,
            "Lax",
        )
        application.free.set()
        page.wait_for_selector(
            "text=The shop", timeout=1000 * DEADLINE_S
        )  # it has come again by itself
        assert page.title() == "The shop"
        asked = [head for head in application.heads if head.startswith(b"GET /page ")]
        assert len(asked) == 1
        assert not any(b"retter_turn" in head for head in application.heads)
        context.close()


def test_axe_finds_no_barrier_in_any_language() -> None:
    """On a phone, light and dark, with all rules; and nothing that it is not sure of."""
    source = axe_source()
    with chromium() as browser:
        for scheme, languages in (("light", list(WORDS)), ("dark", ["en"])):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 360, "height": 640})
            for language in languages:
                page.set_content(waiting_page(language, 3, queued=True).decode())
                page.evaluate(source)
                found = page.evaluate("axe.run()")
                assert [one["id"] for one in found["violations"] + found["incomplete"]] == []
                assert len(found["passes"]) > 20
                assert page.evaluate("document.documentElement.scrollWidth") <= 360
            page.close()


def test_nothing_of_it_is_stored() -> None:
    """The next visitor gets the shop's page, and so does who comes while the shop fails."""
    with full() as (retter, application), chromium() as browser:
        context = browser.new_context(locale="en")
        page = context.new_page()
        url = f"http://127.0.0.1:{retter.port}/page"
        assert page.goto(url).status == 503
        application.free.set()
        page.wait_for_selector("text=The shop", timeout=1000 * DEADLINE_S)
        application.close()
        other = browser.new_context(locale="en").new_page()
        response = other.goto(url)
        assert (response.status, other.title()) == (200, "The shop")
        context.close()


def test_it_can_be_read_light_and_dark_and_on_a_phone() -> None:
    """Contrast of 7:1 at least, and nothing wider than the screen (WCAG 2.2, 1.4.6 and 1.4.10)."""
    with full() as (retter, _), chromium() as browser:
        for scheme in ("light", "dark"):
            context = browser.new_context(
                color_scheme=scheme, viewport={"width": 320, "height": 480}
            )
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{retter.port}/page?{scheme}")
            colours = page.evaluate(
                "[getComputedStyle(document.body).color,"
                " getComputedStyle(document.body).backgroundColor]"
            )
            assert contrast(*colours) >= 7
            assert page.evaluate("document.documentElement.scrollWidth") <= 320
            context.close()


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
