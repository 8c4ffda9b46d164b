"""The listening sockets of all workers."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retter.config.settings import Settings
from retter.net.handover import Inheritance
from retter.net.sockets import ListenError, is_shared, listens
from retter.process import worker_sockets as module
from retter.process.worker_sockets import WorkerSockets


class Given(Inheritance):
    """Sockets that a process has inherited."""

    def __init__(self, *sockets: socket.socket) -> None:
        super().__init__()
        self._listeners = list(sockets)
        self._kept = {str(one.getsockname()) for one in sockets}


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    """Whatever is put in is closed."""
    found: list[Any] = []
    yield found
    for one in found:
        one.close()


def sockets_for(
    opened: list[Any],
    workers: int,
    given: Inheritance,
    *listen: str,
    admin: str = "off",
    upstream: str = ":1",
) -> WorkerSockets:
    settings = Settings(upstream=upstream, listen=listen, admin=admin)
    found = WorkerSockets(settings, workers, given)
    opened.append(found)
    return found


def test_each_worker_has_its_own_socket_for_each_address(opened: list[Any]) -> None:
    found = sockets_for(opened, 3, Inheritance(), "127.0.0.1:0", "127.0.0.1:0")
    own = [found.of(index) for index in range(3)]
    assert [len(one) for one in own] == [2, 2, 2]
    assert len({one.fileno() for sockets in own for one in sockets}) == 6
    for address in (0, 1):
        assert len({sockets[address].getsockname() for sockets in own}) == 1
    assert all(is_shared(one) for one in found.all()) and not found.everywhere


def test_the_sockets_of_the_supervisor_before_are_taken_over(opened: list[Any]) -> None:
    before = sockets_for(opened, 2, Inheritance(), "127.0.0.1:0")
    inherited = [one.dup() for one in before.all()]
    port = inherited[0].getsockname()[1]
    found = sockets_for(opened, 2, Given(*inherited), f"127.0.0.1:{port}")
    assert found.all() == inherited


def test_to_a_socket_that_may_be_shared_others_are_added(opened: list[Any]) -> None:
    listener = socket.create_server(("127.0.0.1", 0), reuse_port=True)
    port = listener.getsockname()[1]
    found = sockets_for(opened, 3, Given(listener), f"127.0.0.1:{port}")
    assert found.of(0) == [listener] and len(found.all()) == 3
    assert {one.getsockname() for one in found.all()} == {listener.getsockname()}


def test_all_workers_accept_from_a_socket_that_may_not_be_shared(opened: list[Any]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    found = sockets_for(opened, 3, Given(listener), f"127.0.0.1:{port}")
    assert [found.of(index) for index in range(3)] == [[listener]] * 3


def test_others_get_the_clients_of_sockets_that_stop_listening_until_they_listen_again(
    opened: list[Any], tmp_path: Path
) -> None:
    path = f"unix:{tmp_path}/s"
    sockets = sockets_for(opened, 2, Inheritance(), "127.0.0.1:0", path)
    first, second = sockets.of(0)[0], sockets.of(1)[0]
    for _ in range(2):  # the second time it does not listen
        sockets.stop_listening(1)
    assert (listens(first), listens(second)) == (True, False)
    assert listens(sockets.of(1)[1]), "all have the same one"
    address = first.getsockname()
    for _ in range(10):
        with socket.create_connection(address), first.accept()[0]:
            pass
    second.listen()
    first.close()
    with socket.create_connection(address) as client, second.accept()[0] as accepted:
        accepted.sendall(b"served")
        assert client.recv(6) == b"served"
        client.sendall(b"asked")
        accepted.settimeout(5)
        assert accepted.recv(5) == b"asked"


def test_an_admin_listener_that_nobody_has_named_takes_the_next_port(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    opened.append(taken)
    port = taken.getsockname()[1]
    monkeypatch.setattr(module, "ADMIN_DEFAULT", f"127.0.0.1:{port}")
    found = sockets_for(opened, 2, Inheritance(), "127.0.0.1:0", admin="auto")
    assert found.admin is not None and found.admin.getsockname()[1] != port
    assert found.of(0)[-1] is found.admin and found.admin not in found.of(1)


def test_an_admin_listener_that_nobody_has_named_leaves_the_application_its_port(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may start later. Visitors would get the admin listener, and it would get no port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(module, "ADMIN_DEFAULT", f"127.0.0.1:{port}")
    found = sockets_for(
        opened, 2, Inheritance(), "127.0.0.1:0", admin="auto", upstream=f"127.0.0.1:{port}"
    )
    assert found.admin is not None and found.admin.getsockname()[1] != port


def test_if_there_is_no_place_for_it_retter_serves_without(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    opened.append(taken)
    monkeypatch.setattr(module, "ADMIN_DEFAULT", f"127.0.0.1:{taken.getsockname()[1]}")
    monkeypatch.setattr(module, "ADMIN_TRIES", 1)
    found = sockets_for(opened, 2, Inheritance(), "127.0.0.1:0", admin="auto")
    assert found.admin is None and found.admin_address == ""


def test_a_named_one_must_be_there(opened: list[Any]) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    opened.append(taken)
    port = taken.getsockname()[1]
    with pytest.raises(ListenError):
        sockets_for(opened, 2, Inheritance(), "127.0.0.1:0", admin=f"127.0.0.1:{port}")


def test_an_inherited_admin_listener_is_used(opened: list[Any], tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listen, admin = f"unix:{tmp_path / 's'}", f"127.0.0.1:{port}"
    found = sockets_for(opened, 2, Given(listener), listen, admin=admin)
    assert found.admin is listener


def test_a_path_is_removed_at_the_end_unless_somebody_keeps_it(
    opened: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "s"
    sockets_for(opened, 2, Inheritance(), f"unix:{path}").close(handed_over=True)
    assert path.exists(), "the successor has it"
    path.unlink()
    found = sockets_for(opened, 2, Inheritance(), f"unix:{path}")
    found.close()
    assert not path.exists()
