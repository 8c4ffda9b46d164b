"""Listening sockets: addresses, what is said of wrong ones, paths, and how they are closed."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from retter.config.units import parse_listen
from retter.net.sockets import (
    ListenError,
    apart_from,
    close_server,
    is_everywhere,
    listen_on,
    listen_privately_on,
    read_what_has_come,
    unlink,
    url_of,
)


@pytest.mark.parametrize("text", ["127.0.0.1:0", ":0", "localhost:0"])
def test_tcp_addresses(text: str) -> None:
    with listen_on(parse_listen(text)) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) in (f"http://127.0.0.1:{port}", f"http://[::1]:{port}")
        assert not listener.getblocking()


def test_all_interfaces_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen_on(parse_listen(":0")) as listener:
        assert listener.family == socket.AF_INET
        assert url_of(listener).startswith("http://127.0.0.1:")


def test_a_busy_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: another program listens there"):
            listen_on(parse_listen(f"127.0.0.1:{port}"))


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(ListenError, match="this machine has no such address"):
        listen_on(parse_listen("192.0.2.1:0"))


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    address = parse_listen(f"unix:{path}")
    listener = listen_on(address)
    assert url_of(listener) == f"unix:{path}"
    # A web server in front is another user, and has to write to it to connect.
    assert path.stat().st_mode & 0o777 == 0o666
    with pytest.raises(ListenError, match="another program listens there"):
        listen_on(address)
    listener.close()
    listen_on(address).close()  # left behind, and taken over


def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket: remove it"):
        listen_on(parse_listen(f"unix:{path}"))
    assert path.read_text() == "precious"


def test_a_stopped_process_with_a_full_backlog_holds_up_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as stopped, contextlib.ExitStack() as clients:
        stopped.bind(path)
        stopped.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        with pytest.raises(ListenError, match="another program listens there"):
            listen_on(parse_listen(f"unix:{path}"))


def test_an_address_of_ipv6_is_named_in_brackets() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on \[2001:db8::1\]:1"):
        listen_on(parse_listen("[2001:db8::1]:1"))


def test_the_applications_port_is_left_to_it() -> None:
    ports = [parse_listen(f"127.0.0.1:{port}") for port in (9090, 9091)]
    assert apart_from(":9090", ports) == apart_from("localhost:9090", ports) == ports[1:]
    assert apart_from("app:9090", ports) == apart_from("unix:/run/app.sock", ports) == ports


def test_a_private_socket_is_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = os.umask(0o022)
    try:
        with listen_privately_on(parse_listen(f"unix:{path}")):
            assert path.stat().st_mode & 0o777 == 0o600
        assert os.umask(0o022) == 0o022, "the umask is what it was"
    finally:
        os.umask(before)


def test_everywhere_is_no_address_and_no_path(tmp_path: Path) -> None:
    for text, everywhere in ((":0", True), ("127.0.0.1:0", False), (f"unix:{tmp_path}/s", False)):
        with listen_on(parse_listen(text)) as listener:
            assert is_everywhere(listener) is everywhere


@pytest.mark.parametrize(
    ("name", "tls", "url"),
    [
        (("192.0.2.1", 80), False, "http://192.0.2.1:80"),
        (("192.0.2.1", 443), True, "https://192.0.2.1:443"),
        (("2001:db8::1", 80, 0, 0), False, "http://[2001:db8::1]:80"),
        (("::", 80, 0, 0), False, "http://127.0.0.1:80"),
    ],
)
def test_the_url_is_what_one_would_type(name: Any, tls: bool, url: str) -> None:
    listener: Any = SimpleNamespace(family=socket.AF_INET, getsockname=lambda: name)
    assert url_of(listener, tls) == url


def test_only_a_path_that_is_still_ours_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listen_on(parse_listen(f"unix:{path}")) as listener:
        unlink(listener)
        assert not path.exists()
        unlink(listener)  # has gone already
    path.write_text("another's")
    unlink(listener)  # is closed, so what stands there is not its own
    assert path.read_text() == "another's"
    with listen_on(parse_listen("127.0.0.1:0")) as listener:
        unlink(listener)  # has no path


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_server_that_closes_leaves_no_accepted_connection_behind(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A client that has connected before is answered; one that comes after is refused."""

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast("asyncio.Transport", transport).write(b"here")
            transport.close()

    async def run() -> None:
        listener = listen_on(parse_listen("127.0.0.1:0"))
        address = listener.getsockname()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answering, sock=listener)
        with socket.create_connection(address) as client:  # in the kernel's queue
            client.settimeout(10)
            await read_what_has_come()  # accepted, and nobody's yet on asyncio's own loop
            await close_server(server, listener)
            assert await asyncio.to_thread(client.recv, 10) == b"here"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())
