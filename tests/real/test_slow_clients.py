"""Slow clients in front of gunicorn with a few synchronous workers: others get their pages.

Over Unix sockets, whose buffers are small: the kernel's for TCP may take a whole answer themselves.
"""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import StartRetter
from tests.real.processes import DEADLINE_S, Program, connected, eventually

WORKERS = 4
LARGE_BYTES = 1_000_000  # under --buffer-answer; twice of what all sockets on its way take
PAGE = b"<p>page</p>"

APPLICATION = f"""
def app(environ, start_response):
    body = environ["wsgi.input"].read() or {PAGE!r}
    if environ["PATH_INFO"].startswith("/large"):
        body = b"x" * {LARGE_BYTES}
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def application(gunicorn: str, short_path: Path) -> Iterator[str]:
    (short_path / "pages.py").write_text(APPLICATION)
    address = short_path / "app"
    program = Program(
        [sys.executable, "-m", gunicorn, "pages:app", "-b", f"unix:{address}", "-w", str(WORKERS),
         "-k", "sync", "--log-level", "warning"],
        environment={"PYTHONPATH": os.pathsep.join([str(short_path), *sys.path])},
        cwd=short_path,
    )  # fmt: skip
    eventually(lambda: connected(address), "gunicorn listens").close()
    yield f"unix:{address}"
    program.kill()


@pytest.fixture
def site(application: str, loop_name: str, start_retter: StartRetter, short_path: Path) -> str:
    address = str(short_path / "site")
    program = start_retter(
        "--upstream",
        application,
        "--loop",
        loop_name,
        "--compress",
        "off",
        listen=f"unix:{address}",
    )
    assert program.addresses
    return address


def connect(site: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE_S)
    sock.connect(site)
    return sock


def asks(site: str, target: str) -> socket.socket:
    sock = connect(site)
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    return sock


def body_from(sock: socket.socket) -> bytes:
    """Read an answer to its end."""
    answer = b""
    while piece := sock.recv(1 << 20):
        answer += piece
    sock.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    return body


def test_slow_uploads_hold_no_worker(site: str) -> None:
    slow = [connect(site) for _ in range(WORKERS)]
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n"
    for sock in slow:
        sock.sendall(head + b"y" * 500)
    for number in range(10):
        assert body_from(asks(site, f"/page/{number}")) == PAGE
    for sock in slow:
        sock.sendall(b"y" * 500)
        assert body_from(sock) == b"y" * 1000


def test_slow_readers_hold_no_worker(site: str) -> None:
    slow = [asks(site, f"/large/{number}") for number in range(WORKERS)]
    for sock in slow:
        assert sock.recv(1, socket.MSG_PEEK) == b"H", "the answer has begun"
    for number in range(10):
        assert body_from(asks(site, f"/page/{number}")) == PAGE
    for sock in slow:
        assert body_from(sock) == b"x" * LARGE_BYTES
