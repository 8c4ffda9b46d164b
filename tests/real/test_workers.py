"""Several workers: one dies, all reload, drain, or are replaced, and nobody notices."""

import contextlib
import http.client
import http.server
import json
import os
import secrets
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from retter.process.signals import SAME_SIGNAL_S
from retter.store.hints import UNANSWERED_MIN
from tests.real.conftest import StartRetter
from tests.real.gate import Gate
from tests.real.processes import (
    DEADLINE_S,
    ApplicationProgram,
    Program,
    RetterProgram,
    accepts,
    eventually,
    free_port,
)
from tests.real.test_limits import CROWD, DESCRIPTORS, arrive
from tests.real.test_takeover import OBSERVE, has_ended, is_alive, load_on, serving, stop_all
from tests.real.wire import fetch

HALF = 1_000_000
CLIENTS = 24  # on two sockets: that all of them go to one happens once in eight million times
CLOCK_S = 0.002


@pytest.fixture
def proxy(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> RetterProgram:
    return start_retter(
        "--upstream", application.upstream, "--loop", loop_name, "--workers", "2", *OBSERVE
    )


@pytest.fixture
def one_loop(application: ApplicationProgram, start_retter: StartRetter) -> RetterProgram:
    """Return a RETTER for tests that do not depend on the event loop."""
    return start_retter("--upstream", application.upstream, "--workers", "2", *OBSERVE)


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a supervisor."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split() if is_alive(int(word))]


def asking(port: int) -> socket.socket:
    """Return a connection on which a request was sent; its answer is not awaited."""
    client = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    client.sendall(b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    return client


def has_answer(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.settimeout(DEADLINE_S)


def all_are_answered(port: int) -> bool:
    """Return whether all of some clients get an answer, and soon."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(asking(port))) for _ in range(CLIENTS)]
        try:
            eventually(lambda: all(map(has_answer, clients)), "all are answered", deadline_s=2)
        except (AssertionError, ConnectionResetError):
            return False
        return True


def test_whoever_waits_for_a_killed_worker_is_served_by_the_next_one(proxy: RetterProgram) -> None:
    port = proxy.port
    killed, other = workers_of(proxy.pid)
    os.kill(killed, signal.SIGSTOP)  # it accepts nobody
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(asking(port))) for _ in range(CLIENTS)]
        eventually(lambda: any(map(has_answer, clients)), "the other one answers its clients")
        os.kill(killed, signal.SIGKILL)
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 200"
    proxy.wait_for_line(lambda line: '"worker-serves"' in line)
    assert other in workers_of(proxy.pid) and killed not in workers_of(proxy.pid)
    ended = next(one for one in proxy.records() if one["event"] == "worker-ended")
    assert ended["signal"] == signal.SIGKILL and ended["again_s"] == 0


def test_nobody_waits_for_a_worker_that_cannot_start(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    """A file that it needs is gone. The other one has all clients until the file is there again."""
    page, away = tmp_path / "page.html", tmp_path / "away.html"
    page.write_text("back soon")
    words = ("--upstream", application.upstream, "--workers", "2", "--error-page", str(page))
    proxy = start_retter(*words, *OBSERVE)
    port = proxy.port
    killed, other = workers_of(proxy.pid)
    page.rename(away)
    os.kill(killed, signal.SIGKILL)

    proxy.wait_for_line(lambda line: '"worker-away"' in line)
    with contextlib.ExitStack() as stack:
        eventually(lambda: all_are_answered(port), "the other one has all clients")
        away.rename(page)
        proxy.wait_for_line(lambda line: '"worker-serves"' in line)
        os.kill(other, signal.SIGSTOP)
        stack.callback(os.kill, other, signal.SIGCONT)
        clients = [stack.enter_context(contextlib.closing(asking(port))) for _ in range(CLIENTS)]
        eventually(lambda: any(map(has_answer, clients)), "the new one has its part again")


def test_a_worker_that_is_asked_to_end_finishes_and_is_replaced(
    application: ApplicationProgram, one_loop: RetterProgram
) -> None:
    with load_on(one_loop.port) as load:
        for pid in workers_of(one_loop.pid):
            os.kill(pid, signal.SIGTERM)
            eventually(lambda pid=pid: has_ended(pid), "it ends")  # type: ignore[misc]
        eventually(lambda: len(workers_of(one_loop.pid)) == 2, "both are replaced")
    assert load.failures == []


def test_workers_reload_one_after_the_other_under_load(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    file = tmp_path / "retter.toml"
    file.write_text("workers = 2")
    words = ("--upstream", application.upstream, "--config", str(file))
    proxy = start_retter(*words, *OBSERVE)
    port, before = proxy.port, workers_of(proxy.pid)
    with load_on(port) as load:
        for text, event in (
            ("drain = 'soon'", "reload-failed"),
            ("drain = '3s'\nworkers = 3", "needs-restart"),
        ):
            file.write_text(text)
            proxy.signal(signal.SIGHUP)
            proxy.wait_for_line(lambda line, event=event: f'"{event}"' in line)  # type: ignore[misc]
    assert load.failures == []
    assert workers_of(proxy.pid) == before
    reloaded = [one for one in proxy.records() if one["event"] == "reloaded"]
    assert [one["changed"] for one in reloaded] == [{"--drain": "3s"}], "told once"


def test_a_successor_with_workers_of_its_own_takes_over_under_load(
    application: ApplicationProgram, proxy: RetterProgram
) -> None:
    try:
        with load_on(proxy.port) as load:
            proxy.signal(signal.SIGUSR2)
            eventually(lambda: not proxy.alive or load.failures, "the old one ends")
        assert load.failures == []
        first, second = (one["pid"] for one in serving(proxy, 2))
        assert first == proxy.pid and len(workers_of(second)) == 2
        with load_on(proxy.port) as load:
            os.kill(second, signal.SIGUSR2)
            third = serving(proxy, 3)[2]["pid"]
            eventually(lambda: not is_alive(second) or load.failures, "the second ends")
        assert load.failures == [] and len(workers_of(third)) == 2
    finally:
        stop_all(proxy)


def test_a_signal_drains_all_workers(application: ApplicationProgram, proxy: RetterProgram) -> None:
    port, gate = proxy.port, Gate(application, "workers")
    with contextlib.ExitStack() as stack:
        waiting = [
            stack.enter_context(
                contextlib.closing(
                    http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
                )
            )
            for _ in range(CLIENTS)
        ]
        for client in waiting:
            client.request("GET", f"/wait?gate={gate.name}")
        eventually(lambda: gate.waiting() == CLIENTS, "all of them wait in the application")
        proxy.signal(signal.SIGTERM)
        eventually(lambda: not accepts(port), "no new connections")
        assert len(workers_of(proxy.pid)) == 2
        gate.open()
        assert [client.getresponse().status for client in waiting] == [200] * CLIENTS
    assert proxy.wait() == 0


def test_a_second_signal_ends_all_workers_at_once(
    application: ApplicationProgram, one_loop: RetterProgram
) -> None:
    gate = Gate(application, "never")
    client = http.client.HTTPConnection("127.0.0.1", one_loop.port, timeout=DEADLINE_S)
    with contextlib.closing(client):
        client.request("GET", f"/wait?gate={gate.name}")
        eventually(lambda: gate.waiting() == 1, "it waits in the application")
        one_loop.signal(signal.SIGTERM)
        one_loop.wait_for_line(lambda line: '"draining"' in line)
        time.sleep(SAME_SIGNAL_S + CLOCK_S)
        one_loop.signal(signal.SIGTERM)
        assert one_loop.wait() == 1
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            client.getresponse()
    gate.open()


def test_no_worker_is_left_when_the_supervisor_has_ended(one_loop: RetterProgram) -> None:
    assert one_loop.addresses
    pids = workers_of(one_loop.pid)
    assert len(pids) == 2 and one_loop.stop() == 0
    assert all(map(has_ended, pids))


def test_no_worker_outlives_its_supervisor(one_loop: RetterProgram) -> None:
    assert fetch(one_loop.port, "GET", "/page").status == 200
    pids = workers_of(one_loop.pid)
    assert len(pids) == 2
    one_loop.signal(signal.SIGKILL)
    one_loop.wait()
    for pid in pids:
        eventually(lambda pid=pid: has_ended(pid), "it ends")  # type: ignore[misc]


def test_a_port_that_another_retter_has_is_refused(
    application: ApplicationProgram, programs: list[Program]
) -> None:
    """Two of them would share it silently: the kernel lets programs of one user do that."""
    listen = f"127.0.0.1:{free_port()}"
    words = ("--upstream", application.upstream, "--workers", "2")
    first = RetterProgram(*words, listen=listen)
    programs.append(first)
    assert first.addresses == [f"http://{listen}"]
    second = RetterProgram(*words, listen=listen)
    programs.append(second)
    assert second.wait() == 1
    assert json.loads(second.lines[-1])["event"] == "cannot-start"


def test_what_one_worker_has_stored_is_served_by_all(
    start_retter: StartRetter, programs: list[Program]
) -> None:
    application = ApplicationProgram()
    programs.append(application)
    words = ("--upstream", application.upstream, "--workers", "2", "--connect-hold", "0")
    proxy = start_retter(*words)
    port = proxy.port
    assert fetch(port, "GET", "/page").status == 200
    # A change is written to the shared store at once, with all that was stored before.
    eventually(lambda: fetch(port, "POST", "/other").status == 200, "a change")
    application.kill()

    def all_are_served() -> bool:
        return all(fetch(port, "GET", "/page").stored for _ in range(CLIENTS))

    eventually(all_are_served, "both workers have it")


def test_a_purge_counts_each_page_of_all_workers_once(
    application: ApplicationProgram, start_retter: StartRetter
) -> None:
    admin = free_port()
    words = ("--upstream", application.upstream, "--workers", "2", "--admin", f"127.0.0.1:{admin}")
    port = start_retter(*words).port
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, pages in ((b"prefix=/echo/1", 11), (b"all=true", 9), (b"all=true", 0)):
        for number in range(20 if pages == 11 else 0):
            assert fetch(port, "GET", f"/echo/{number}").status == 200
            assert fetch(port, "GET", f"/echo/{number}").status == 200
        answer = fetch(admin, "POST", "/api/purge", form, body)
        assert json.loads(answer.body) == {"purged": pages, "complete": True}


def test_a_list_of_what_is_stored_has_each_page_of_all_workers_once(
    application: ApplicationProgram, start_retter: StartRetter
) -> None:
    admin, count = free_port(), 120
    words = ("--upstream", application.upstream, "--workers", "2", "--admin", f"127.0.0.1:{admin}")
    port = start_retter(*words).port
    for number in range(count):
        cookie = {"Cookie": "PHPSESSID=0123456789abcdef"} if number % 2 else {}
        assert fetch(port, "GET", f"/echo/{number}", cookie).status == 200

    def listed(query: str = "") -> tuple[list[str], int]:
        urls: list[str] = []
        ages: list[float] = []
        skip = 0
        while True:
            answer = fetch(admin, "GET", f"/api/stored?skip={skip}&{query}")
            assert answer.status == 200 and b"0123456789abcdef" not in answer.body
            found = json.loads(answer.body)
            assert found["complete"] and len(found["entries"]) <= 50
            urls += [one["url"].partition("/")[2] for one in found["entries"]]
            ages += [one["age_s"] for one in found["entries"]]
            if not found["next"]:
                assert all(a <= b + 0.2 for a, b in pairwise(ages)), "the newest first"
                return sorted(urls), found["of"]
            skip = found["next"]

    wanted = sorted([f"echo/{number}" for number in range(count)])
    private = [one for one in wanted if int(one[-1]) % 2]
    assert listed() == (wanted, count), "also those that no worker has written yet"
    assert listed("owner=private") == (private, count)
    assert listed("search=echo/11") == ([one for one in wanted if "echo/11" in one], count)
    eventually(lambda: listed() == (wanted, count), "the same when all are written")


def state_of(admin: int) -> dict[str, Any]:
    state: dict[str, Any] = fetch(admin, "GET", "/api/state").json
    return state


def test_why_status_and_metrics_speak_for_the_queue_of_all_workers(
    application: ApplicationProgram, start_retter: StartRetter
) -> None:
    admin, gate = free_port(), Gate(application, "queue")
    port = start_retter(
        "--upstream", application.upstream, "--workers", "2", "--admin", f"127.0.0.1:{admin}",
        "--max-in-flight", "1", "--queue-wait", "60s",
    ).port  # fmt: skip
    asked = {"Content-Type": "application/x-www-form-urlencoded"}, b"url=http://a/page"

    def limits() -> dict[str, Any]:
        found: dict[str, Any] = fetch(admin, "POST", "/api/why", *asked).json["limits"]
        return found

    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):
            client = stack.enter_context(
                contextlib.closing(
                    http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
                )
            )
            client.request("GET", f"/wait?gate={gate.name}")
        eventually(
            lambda: sum([limits()[name] for name in ("in_flight", "queue")]) == CLIENTS, "all wait"
        )
        assert limits()["in_flight"] <= 2
        eventually(
            lambda: (state := state_of(admin))["in_flight"] + state["queue"] == CLIENTS, "and here"
        )
        state = state_of(admin)
        assert 0 < state["workers"][0]["connections"] < CLIENTS, "each has some of them"
        assert sum([lane["waiting"] for lane in state["turns"]["lanes"].values()]) > 0
        gate.open()


def test_a_hint_of_both_workers_is_given_and_logged_once(
    start_retter: StartRetter, programs: list[Program]
) -> None:
    application = ApplicationProgram()
    programs.append(application)
    admin = free_port()
    proxy = start_retter(
        "--upstream", application.upstream, "--workers", "2", "--admin", f"127.0.0.1:{admin}",
        "--connect-hold", "0",
    )  # fmt: skip
    port = proxy.port
    application.kill()

    def ask(number: int) -> int:
        return fetch(port, "GET", f"/new/{number}", {"Cookie": f"popup_seen={number}"}).status

    asked = 4 * UNANSWERED_MIN  # so many that both workers notice it
    with ThreadPoolExecutor(UNANSWERED_MIN) as visitors:  # each waits for its turn, and gets none
        assert min(visitors.map(ask, range(asked))) >= 500

    def hints() -> list[str]:
        return [one for one in state_of(admin)["hints"] if "popup_seen" in one]

    eventually(hints, "a hint")
    eventually(
        lambda: [one for one in proxy.records() if one["event"] == "hint"], "which is logged"
    )
    assert len(hints()) == 1
    assert len([one for one in proxy.records() if one["event"] == "hint"]) == 1


def test_what_is_stored_while_a_successor_starts_is_there_afterwards(
    start_retter: StartRetter, programs: list[Program]
) -> None:
    application = ApplicationProgram()
    programs.append(application)
    words = ("--upstream", application.upstream, "--workers", "2", "--connect-hold", "0")
    proxy = start_retter(*words)
    try:
        port = proxy.port
        fetch(port, "GET", "/page")
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_line(lambda line: '"takeover"' in line)
        pages: list[str] = []
        while sum(one["event"] == "serving" for one in proxy.records()) < 2:
            pages.append(f"/page/{len(pages)}")
            assert fetch(port, "GET", pages[-1]).status == 200
            time.sleep(CLOCK_S)
        eventually(lambda: not proxy.alive, "the old one ends")
        application.kill()
        assert len(pages) > 10, "the successor takes a while to start"
        eventually(lambda: all(fetch(port, "GET", page).stored for page in pages), "all are there")
    finally:
        stop_all(proxy)


def test_slow_clients_that_take_all_descriptors_of_the_workers_keep_nobody_out(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    """Each worker makes room by itself: the kernel gives it clients, however many it has."""
    words = ("--upstream", application.upstream, "--loop", loop_name, "--workers", "2", *OBSERVE)
    proxy = start_retter(*words, descriptors=DESCRIPTORS)
    port = proxy.port
    crowd = arrive(port, 2 * CROWD)
    try:
        for _ in range(CLIENTS):  # both workers get some of them
            assert fetch(port, "GET", "/page").status == 200
        for pid in workers_of(proxy.pid):
            assert DESCRIPTORS / 2 < len(os.listdir(f"/proc/{pid}/fd")) <= DESCRIPTORS
    finally:
        for sock in crowd:
            sock.close()


class RollingApplication(http.server.BaseHTTPRequestHandler):
    """Gives the session another value with each response, as Laravel and Rails do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.is_down:  # type: ignore[attr-defined]
            self.close_connection = True
            return
        users: dict[str, str] = self.server.users  # type: ignore[attr-defined]
        user = users.get((self.headers["Cookie"] or "").removeprefix("app_session="), "")
        if self.path.startswith("/login/"):
            user = self.path.removeprefix("/login/")
        value, body = secrets.token_hex(20), f"{self.path} of {user}".encode()
        users[value] = user
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", f"app_session={value}; Path=/; HttpOnly")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_visitors_find_their_own_pages_in_any_worker_with_a_cookie_that_changes_each_time(
    start_retter: StartRetter,
) -> None:
    """Each request has a connection of its own, so the kernel chooses the worker."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RollingApplication) as server:
        server.daemon_threads = True
        server.is_down, server.users = False, {}  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = start_retter(
            "--upstream", f"127.0.0.1:{server.server_port}", "--workers", "3",
            "--rolling-cookies", "app_session", "--connect-hold", "0s",
        ).port  # fmt: skip
        cookies: dict[str, str] = {}

        def ask(user: str, target: str) -> tuple[int, bytes, bool]:
            fields = {"Host": "shop.example"}
            if user in cookies:
                fields["Cookie"] = cookies[user]
            answer = fetch(port, "GET", target, fields)
            if (given := answer.get("Set-Cookie")) is not None:
                cookies[user] = given.partition(";")[0]
            return answer.status, answer.body, answer.get("X-Retter") == "cache"

        users, pages = [f"user-{number}" for number in range(6)], ["/a", "/b", "/c"]
        for user in users:
            ask(user, f"/login/{user}")
        for page in pages:
            for user in users:
                assert ask(user, page)[1] == f"{page} of {user}".encode()
        server.is_down = True  # type: ignore[attr-defined]
        server.shutdown()
    own = {
        (user, page): (200, f"{page} of {user}".encode(), True) for user in users for page in pages
    }
    found: list[bool] = []

    def all_have_their_pages() -> bool:
        """Ask for each; what a worker stored is in the store of all some seconds later."""
        for key, wanted in own.items():
            status, body, stored = ask(*key)
            assert status != 200 or (status, body, stored) == wanted
            found.append(status == 200)
        return all(found[-len(own) :])

    eventually(all_have_their_pages, "each visitor has all of their own pages, in any worker")


def test_a_store_in_memory_ends_with_retter(
    application: ApplicationProgram, start_retter: StartRetter
) -> None:
    proxy = start_retter("--upstream", application.upstream, "--workers", "2")
    assert fetch(proxy.port, "GET", "/page").status == 200
    folder = next(
        Path(line.split()[-1]).parent
        for line in Path(f"/proc/{workers_of(proxy.pid)[0]}/maps").read_text().splitlines()
        if line.endswith("/data.mdb")
    )
    assert folder.stat().st_mode & 0o777 == 0o700
    assert proxy.stop() == 0
    assert not folder.exists()


def test_a_store_that_cannot_be_used_is_told_before_anything_serves(
    application: ApplicationProgram, programs: list[Program], tmp_path: Path
) -> None:
    place = tmp_path / "file"
    place.write_text("")
    words = ("--upstream", application.upstream, "--workers", "2", "--store", str(place))
    proxy = RetterProgram(*words)
    programs.append(proxy)
    assert proxy.wait() == 2
    assert "is not a folder" in proxy.output
