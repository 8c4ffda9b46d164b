"""Messages to systemd, and sockets from it."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from retter.config.settings import ConfigError
from retter.config.units import parse_listen
from retter.net import systemd
from retter.net.handover import Inheritance


@pytest.mark.parametrize("abstract", [False, True])
def test_notices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:
    name = f"@retter-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        systemd.notify("READY=1", "STATUS=circuit OPEN")
        assert manager.recv(1000) == b"READY=1\nSTATUS=circuit OPEN"
        systemd.notify_reloading()
        first, second = manager.recv(1000).split(b"\n")
        assert first == b"RELOADING=1"
        assert second.startswith(b"MONOTONIC_USEC=") and second[15:].isdigit()


def test_without_a_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "wanted"),
    [
        (None, None, False),
        ("30000000", None, True),
        ("30000000", str(os.getpid()), True),
        ("30000000", "1", False),
    ],
    ids=["none", "anybody's", "ours", "somebody else's"],
)
def test_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, wanted: bool
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_wanted() is wanted


@pytest.mark.parametrize(
    ("pid", "count"),
    [("1", "1"), (str(os.getpid()), "x"), ("", "")],
    ids=["somebody else's", "no number", "empty"],
)
def test_sockets_for_somebody_else(monkeypatch: pytest.MonkeyPatch, pid: str, count: str) -> None:
    monkeypatch.setenv("LISTEN_PID", pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    assert systemd.take_listeners() == []
    assert "LISTEN_FDS" not in os.environ


def test_what_is_no_listening_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `Accept=yes` or `ListenDatagram=`: each is one line, before anything opens."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind(("127.0.0.1", 0))
    with listener, client, accepted, datagrams, bound, open(os.devnull) as file:
        for one, why in (
            (accepted, "Invalid argument"),
            (datagrams, "it is for datagrams"),
            (file, "Socket operation on non-socket"),
            (None, "Bad file descriptor"),
        ):
            number = 1_000_000 if one is None else os.dup(one.fileno())
            monkeypatch.setattr(systemd, "_FIRST_FD", number)
            monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
            monkeypatch.setenv("LISTEN_FDS", "1")
            with pytest.raises(ConfigError, match=f"LISTEN_FDS: descriptor {number} .*{why}"):
                systemd.take_listeners()
            if one is file:
                os.close(number)
        number = os.dup(bound.fileno())
        monkeypatch.setattr(systemd, "_FIRST_FD", number)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        with systemd.take_listeners()[0] as found:
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@pytest.mark.parametrize(
    ("bound", "text", "fits"),
    [
        (("127.0.0.1", 0), "127.0.0.1:{}", True),
        (("127.0.0.1", 0), "127.0.0.1:0", True),
        (("127.0.0.1", 0), "127.0.0.1:{},tls", True),
        (("127.0.0.1", 0), ":{}", False),
        (("127.0.0.1", 0), "127.0.0.2:{}", False),
        (("127.0.0.1", 0), "127.0.0.1:1", False),
        (("0.0.0.0", 0), ":{}", True),
        (("0.0.0.0", 0), "127.0.0.1:{}", False),
        (("::", 0), ":{}", True),
        (("::", 0), "unix:/x", False),
        (("::1", 0), "[::1]:{}", True),
    ],
)
def test_which_socket_is_meant(
    monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int], text: str, fits: bool
) -> None:
    family = socket.AF_INET6 if ":" in bound[0] else socket.AF_INET
    with socket.create_server(bound, family=family) as listener:
        monkeypatch.setattr(systemd, "take_listeners", lambda: [listener])
        inheritance = Inheritance()
        address = parse_listen(text.format(listener.getsockname()[1]))
        if fits:
            assert inheritance.take(address) is listener
            assert inheritance.is_kept(listener)
            assert inheritance.take(address) is None
            assert inheritance.close_rest() == []
        else:
            assert inheritance.take(address) is None
            assert len(inheritance.close_rest()) == 1
            assert listener.fileno() < 0


def test_a_unix_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        monkeypatch.setattr(systemd, "take_listeners", lambda: [listener])
        inheritance = Inheritance()
        assert inheritance.take(parse_listen("unix:/other")) is None
        assert inheritance.take(parse_listen(":80")) is None
        assert inheritance.take(parse_listen(f"unix:{tmp_path}/s")) is listener


def test_a_successor_keeps_the_watchdog_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the watchdog for the old process's alone, and would have been killed by it."""
    monkeypatch.setenv("WATCHDOG_USEC", "5000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    environment: Any = systemd.environment_of_successor()
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert systemd.watchdog_wanted()
