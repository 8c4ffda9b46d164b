"""Several boxes and a real Redis or Valkey: what one stored the other serves."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import trustme

from retter.far.server import Away, RedisServer
from tests.real.boxes import (
    ALICE,
    PRIVATE_PATH,
    RIGHTS,
    SECRET,
    SECRET_COOKIE,
    SERVERS,
    SHOP,
    Boxes,
    Load,
    RedisProgram,
    mortal_application,  # noqa: F401 - a fixture
    shared_server,  # noqa: F401 - a fixture
)
from tests.real.conftest import StartRetter
from tests.real.processes import DEADLINE_S, ApplicationProgram, Program, free_port
from tests.real.wire import fetch
from tests.support.tracing import untraced

pytestmark = untraced

WORKERS = pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=("one", "workers"))


@WORKERS
def test_the_second_box_serves_what_the_first_stored_and_the_server_sees_nothing_of_it(
    mortal: ApplicationProgram,
    start_retter: StartRetter,
    redis: RedisProgram,
    tmp_path: Path,
    more: tuple[str, ...],
) -> None:
    boxes = Boxes(start_retter, mortal, f"redis://127.0.0.1:{redis.port}/3", tmp_path, *more)
    boxes.wait_until(lambda: boxes.shared(0)["boxes"] == 2 == boxes.shared(1)["boxes"], "2 boxes")
    first, second = boxes.ports
    public = fetch(first, "GET", "/echo/public-news", SHOP)
    private = fetch(first, "GET", PRIVATE_PATH, ALICE)
    assert (public.status, private.status) == (200, 200)
    boxes.wait_until(lambda: boxes.shared(0)["written"] >= 2, "both are written")
    redis.do("SAVE")
    dump = (tmp_path / "dump.rdb").read_bytes()
    assert b"retter:1:{" in dump
    for text in (SECRET_COOKIE, "alice", "orders", "public-news", "shop.example", SECRET):
        assert text.encode() not in dump
    mortal.kill()
    boxes.wait_for_page(1, "/echo/public-news", SHOP, public.body)
    boxes.wait_for_page(1, PRIVATE_PATH, ALICE, private.body)
    stranger = {**SHOP, "Cookie": "PHPSESSID=bob-0123456789abcdef"}
    assert fetch(second, "GET", PRIVATE_PATH, stranger).status in (502, 503)
    assert fetch(second, "GET", PRIVATE_PATH, SHOP).status in (502, 503)


@pytest.mark.release
@WORKERS
def test_no_fault_of_the_server_is_an_error_for_a_visitor(
    mortal: ApplicationProgram,
    start_retter: StartRetter,
    programs: list[Program],
    redis: RedisProgram,
    tmp_path: Path,
    more: tuple[str, ...],
) -> None:
    """Killed, frozen, filled, flushed, made read-only, and without rights, all of it under load."""
    boxes = Boxes(start_retter, mortal, f"redis://127.0.0.1:{redis.port}", tmp_path, *more)
    boxes.wait_until(boxes.connected, "both use it")
    load = Load(boxes.ports)
    load.start()
    try:
        boxes.wait_until(lambda: boxes.shared(0)["written"] > 20, "it is written to")

        redis.kill()
        boxes.wait_until(boxes.away, "it is noticed that it was killed")
        redis = RedisProgram(tmp_path, port=redis.port, name=redis.name)
        programs.append(redis)
        boxes.wait_until(boxes.connected, "the new one is used")

        redis.signal(signal.SIGSTOP)
        boxes.wait_until(boxes.away, "it is noticed that it is frozen")
        redis.signal(signal.SIGCONT)
        boxes.wait_until(boxes.connected, "it goes on")

        redis.do("CONFIG", "SET", "maxmemory", 1)
        boxes.wait_until(boxes.away, "it is noticed that it is full")
        assert "maxmemory" in boxes.shared(0)["trouble"]
        redis.do("CONFIG", "SET", "maxmemory", 0)
        boxes.wait_until(boxes.connected, "there is room again")

        written = boxes.shared(0)["written"]
        redis.do("FLUSHALL")
        boxes.wait_until(lambda: boxes.shared(0)["written"] > written, "it goes on being written")

        redis.do("REPLICAOF", "127.0.0.1", 1)
        boxes.wait_until(boxes.away, "it is noticed that it is read-only")
        redis.do("REPLICAOF", "NO", "ONE")
        boxes.wait_until(boxes.connected, "it can be written again")

        redis.do("ACL", "SETUSER", "default", "-xadd", "-zadd")
        boxes.wait_until(boxes.away, "it is noticed that a right is missing")
        assert "zadd" in boxes.shared(0)["trouble"].lower()
        redis.do("ACL", "SETUSER", "default", "+@all")
        boxes.wait_until(boxes.connected, "it may do all again")
    finally:
        load.end()
    assert set(load.statuses) == {200} and sum(load.statuses.values()) > 200
    for program in boxes.programs:
        events = [one["event"] for one in program.records() if "store" in one["event"]]
        assert events[:2] == ["shared-store-away", "shared-store-back"], "each change once"
        assert all(before != after for before, after in pairwise(events))


@pytest.mark.parametrize("name", SERVERS)
def test_with_tls_and_a_user_who_may_do_no_more_than_is_needed(
    mortal: ApplicationProgram,
    start_retter: StartRetter,
    programs: list[Program],
    tmp_path: Path,
    name: str,
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    port = free_port()
    redis = RedisProgram(
        tmp_path, "--tls-port", str(port), "--tls-cert-file", "server.pem", "--tls-key-file",
        "server.pem", "--tls-ca-cert-file", "ca.pem", "--tls-auth-clients", "no", name=name,
    )  # fmt: skip
    programs.append(redis)
    redis.do("ACL", "SETUSER", "retter", "on", ">a-password", *RIGHTS.split())
    url = f"rediss://retter:a-password@localhost:{port}/0?ssl_ca_certs={tmp_path}/ca.pem"
    boxes = Boxes(start_retter, mortal, url, tmp_path)
    boxes.wait_until(lambda: boxes.shared(1)["boxes"] == 2, "2 boxes")
    first = boxes.ports[0]
    page = fetch(first, "GET", "/echo/page", SHOP)
    mine = fetch(first, "GET", PRIVATE_PATH, ALICE)
    boxes.wait_until(lambda: boxes.shared(0)["written"] >= 2, "they are written")
    fetch(boxes.admins[1], "POST", "/api/circuit", {"Content-Type": FORM}, b"mode=open&seconds=60")
    fetch(boxes.admins[1], "POST", "/api/purge", {"Content-Type": FORM}, b"url=/echo/nothing")
    boxes.wait_until(lambda: boxes.shared(0)["changes_heard"] >= 1, "the first has heard of it")
    document = json.loads(fetch(boxes.admins[0], "GET", "/api/state").body)
    assert document["forced"] == "open"
    boxes.wait_for_page(1, "/echo/page", SHOP, page.body)
    boxes.wait_for_page(1, PRIVATE_PATH, ALICE, mine.body)
    assert boxes.shared(1)["hits"] == 2 and boxes.shared(1)["failures"] == 0
    for program in boxes.programs:
        assert "a-password" not in program.output


@pytest.mark.parametrize("name", SERVERS)
def test_a_place_that_is_taken_is_told_by_each_server_in_the_same_words(
    programs: list[Program], tmp_path: Path, name: str
) -> None:
    program = RedisProgram(tmp_path, name=name)
    programs.append(program)
    server = RedisServer(f"redis://127.0.0.1:{program.port}/0", DEADLINE_S, 1_000_000)
    add = ("XADD", b"x", "MAXLEN", "~", 10, b"5-0", "m", b"v")
    assert server.run([add, add, ("XLEN", b"x")]) == [b"5-0", None, 1]
    with pytest.raises(Away, match="Invalid stream ID"):
        server.run([("XADD", b"x", b"five", "m", b"v")])
    server.close()


class Dripping(threading.Thread):
    """A server of which each octet comes in time, and no answer ever."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends = threading.Event()
        self._connections: list[socket.socket] = []
        self.start()

    def run(self) -> None:
        self._listener.settimeout(0.05)
        while not self._ends.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                connection.sendall(b"$100000000\r\n")
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")

    def close(self) -> None:
        self._ends.set()
        self.join()
        for sock in (self._listener, *self._connections):
            sock.close()


def test_a_server_that_never_stops_to_answer_holds_up_neither_visitors_nor_the_end(
    mortal: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    server = Dripping()
    try:
        boxes = Boxes(start_retter, mortal, f"redis://127.0.0.1:{server.port}", tmp_path)
        for port in boxes.ports:
            assert fetch(port, "GET", "/echo/page", SHOP).status == 200
        purged = fetch(boxes.admins[0], "POST", "/api/purge", {"Content-Type": FORM}, b"url=/x")
        assert purged.status == 200
        for program in boxes.programs:
            assert program.stop() == 0
    finally:
        server.close()


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shared", "cache:6379"), "is not the URL of a server"),
        (("--shared", "redis://cache"), "shared needs --shared-secret"),
        (("--shared", "redis://cache", "--shared-secret", "/dev/null"), "too few for a secret"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_opens(
    arguments: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retter", "--upstream", ":1", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from importlib import util; found = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'redis' else found(name, *a)\n"
        "from retter.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--upstream", ":1", "--shared", "redis://cache",
         "--shared-secret", str(tmp_path / "secret")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'retter[shared]'" in done.stderr
