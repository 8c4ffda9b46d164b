"""A PHP site with sessions: everybody keeps their own last good page, whatever becomes of PHP."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.real.conftest import StartRetter
from tests.real.processes import Program, RetterProgram, accepts, eventually, free_port
from tests.real.wire import Answer, Client, fetch

INDEX = Path(__file__).parent / "php" / "index.php"
SESSION = re.compile(r"PHPSESSID=([^;]+)")
HEADING = re.compile(r"<h1>Hello (\S+), visit (\d+) of (\S+)</h1>")


class Site:
    """The site on PHP's built-in server, which can be killed and started again."""

    def __init__(self, php: str, folder: Path) -> None:
        self._php = php
        self._folder = folder
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.program = Program(
            [
                self._php,
                "-d",
                f"session.save_path={self._folder}",
                "-d",
                "session.gc_probability=0",
                "-S",
                f"127.0.0.1:{self.port}",
                str(INDEX),
            ],
            {"PHP_CLI_SERVER_WORKERS": "4"},
        )
        eventually(lambda: accepts(self.port), "PHP listens")

    def kill(self) -> None:
        self.program.kill()


class Visitor:
    """Somebody with a browser: a connection, and the session cookie that they were given."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self._client = Client(port)
        self.cookie = cookie

    def get(self, target: str) -> Answer:
        fields = {"Accept": "text/html"}
        if self.cookie:
            # the analytics cookie, that is new each time, must not make somebody else of them
            fields["Cookie"] = f"_ga=GA1.1.{threading.get_ident()}; PHPSESSID={self.cookie}"
        return self._client("GET", target, fields)

    def post(self, target: str, **form: str) -> Answer:
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        if self.cookie:
            fields["Cookie"] = f"PHPSESSID={self.cookie}"
        answer = self._client("POST", target, fields, urlencode(form).encode())
        for line in answer.get_all("set-cookie"):
            if found := SESSION.match(line):
                self.cookie = found[1]
        return answer

    def log_in(self, name: str) -> None:
        answer = self.post("/login", name=name)
        assert (answer.status, answer.get("location")) == (303, "/account")
        assert self.cookie

    def close(self) -> None:
        self._client.close()


def heading(answer: Answer) -> tuple[str, int, str]:
    """Return the heading of a page: the visitor, the number of the visit, and the page."""
    found = HEADING.search(answer.text)
    assert found, answer
    return found[1], int(found[2]), found[3]


def becomes_fresh(visitor: Visitor, target: str) -> Answer:
    """Ask until the application itself has answered: at once, unless it was or is too slow."""
    answers: list[Answer] = []

    def fresh() -> bool:
        answers.append(visitor.get(target))
        return not answers[-1].stored

    eventually(fresh, "fresh pages again")
    return answers[-1]


@pytest.fixture
def site(php: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(php, tmp_path)
    yield site
    site.kill()


@pytest.fixture
def proxy(site: Site, start_retter: StartRetter, loop_name: str) -> RetterProgram:
    # short waits: who asks a dead application for what is not stored is told so at once
    return start_retter(
        "--upstream",
        f"127.0.0.1:{site.port}",
        "--loop",
        loop_name,
        "--connect-hold",
        "200ms",
        "--queue-wait",
        "100ms",
        "--patience-closed",
        "500ms",
    )


@pytest.fixture
def visit(proxy: RetterProgram) -> Iterator[Callable[..., Visitor]]:
    visitors: list[Visitor] = []

    def make(cookie: str = "") -> Visitor:
        visitors.append(Visitor(proxy.port, cookie))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.close()


def test_everybody_keeps_their_own_last_page_while_php_is_dead(
    site: Site, proxy: RetterProgram, visit: Callable[..., Visitor]
) -> None:
    alice, bob, nobody = visit(), visit(), visit()
    alice.log_in("alice")
    bob.log_in("bob")
    last: dict[tuple[str, str], Answer] = {}
    for target in ("/account", "/orders?page=2"):
        for name, visitor in (("alice", alice), ("bob", bob), ("guest", nobody)):
            for _ in range(2):
                answer = becomes_fresh(visitor, target)
                assert (answer.status, answer.get("x-retter")) == (200, "backend")
                assert heading(answer)[0] == name
                last[name, target] = answer
    about = nobody.get("/about")

    site.kill()
    for _ in range(3):  # refused at first, from an open circuit later: the same pages
        for (name, target), page in last.items():
            visitor = {"alice": alice, "bob": bob, "guest": nobody}[name]
            answer = visitor.get(target)
            assert (answer.status, answer.body) == (200, page.body)
            assert answer.stored and answer.get("age") is not None
            assert answer.get("set-cookie") is None
        for visitor in (alice, bob, nobody):  # the public page is everybody's
            assert visitor.get("/about").body == about.body

    # The same connections with somebody else's cookie, with an unknown one, with none.
    alice.cookie, bob.cookie = bob.cookie, alice.cookie
    assert heading(alice.get("/account"))[0] == "bob"
    assert heading(bob.get("/account"))[0] == "alice"
    both = visit(f"{alice.cookie}; PHPSESSID={bob.cookie}")
    stranger = visit("0123456789abcdef0123456789")
    alice.cookie, bob.cookie = bob.cookie, alice.cookie
    for visitor in (both, stranger, visit()):
        assert heading(visitor.get("/account"))[0] == "guest"
        # seen by nobody without a session: an error, and no page of anyone's
        answer = visitor.get("/private")
        assert answer.status in (502, 503) and "Hello" not in answer.text

    answer = alice.post("/orders", item="book")
    assert answer.status == 502 and not answer.stored

    site.start()
    for name, visitor in (("alice", alice), ("bob", bob), ("guest", nobody)):
        for target in ("/account", "/orders?page=2", "/about"):
            becomes_fresh(visitor, target)
        seen, count, _ = heading(visitor.get("/account"))
        assert seen == name
        if name != "guest":
            assert count > heading(last[name, "/account"])[1]
    assert alice.post("/orders", item="book").status == 200


def test_logout_ends_what_is_stored_for_the_session(
    site: Site, proxy: RetterProgram, visit: Callable[..., Visitor]
) -> None:
    alice, bob = visit(), visit()
    alice.log_in("alice")
    bob.log_in("bob")
    assert [heading(visitor.get("/account"))[0] for visitor in (alice, bob)] == ["alice", "bob"]
    session = alice.cookie
    assert alice.post("/logout").status == 303
    site.kill()
    answer = visit(session).get("/account")
    assert answer.status in (502, 503) and "alice" not in answer.text
    assert heading(bob.get("/account"))[0] == "bob"


def test_login_ends_what_was_stored_for_the_session_before(
    site: Site, proxy: RetterProgram, visit: Callable[..., Visitor]
) -> None:
    visitor = visit()
    visitor.log_in("alice")
    visitor.get("/account")
    before = visitor.cookie
    visitor.log_in("alicia")
    assert visitor.cookie != before
    # A request in the same millisecond as the login (uvloop's clock has no finer one) may have been
    # on its way before it, and is not stored. So the page is asked for twice.
    for _ in range(2):
        assert heading(visitor.get("/account"))[0] == "alicia"
    site.kill()
    assert heading(visitor.get("/account"))[0] == "alicia"
    assert "alice" not in visit(before).get("/account").text


def test_php_that_hangs_is_not_waited_for(
    site: Site, proxy: RetterProgram, visit: Callable[..., Visitor]
) -> None:
    alice, bob = visit(), visit()
    alice.log_in("alice")
    bob.log_in("bob")
    pages = [visitor.get("/account").body for visitor in (alice, bob)]
    site.program.signal_all(signal.SIGSTOP)
    try:
        for _ in range(2):
            for visitor, page in zip((alice, bob), pages, strict=True):
                answer = visitor.get("/account")
                assert answer.stored and answer.body == page
    finally:
        site.program.signal_all(signal.SIGCONT)
    for visitor in (alice, bob):
        becomes_fresh(visitor, "/account")


def test_php_dies_and_comes_back_under_load_and_nobody_sees_anothers_page(
    site: Site, proxy: RetterProgram, visit: Callable[..., Visitor]
) -> None:
    names = [f"user{number}" for number in range(8)]
    visitors = {name: visit() for name in names}
    for name, visitor in visitors.items():
        visitor.log_in(name)
        for target in ("/account", "/cart"):
            visitor.get(target)
    wrong: list[str] = []
    counts = dict.fromkeys(names, 0)
    stop = threading.Event()

    def browse(name: str) -> None:
        while not stop.is_set():
            for target in ("/account", "/cart"):
                answer = visitors[name].get(target)
                if answer.status != 200 or heading(answer)[::2] != (name, target):
                    wrong.append(f"{name} saw {answer.status} {heading(answer)}")
            counts[name] += 1

    def everybody_goes_on() -> None:
        before = dict(counts)
        eventually(lambda: all(counts[name] > before[name] + 3 for name in names), "visits")

    threads = [threading.Thread(target=browse, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            everybody_goes_on()
            site.kill()
            everybody_goes_on()
            site.start()
        everybody_goes_on()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    eventually(lambda: fetch(proxy.port, "GET", "/about").status == 200, "new pages, too")
