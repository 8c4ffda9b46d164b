"""Sockets and descriptors that a process receives at its start."""

import json
import os
import socket
from typing import Any

import pytest

from retter.config.settings import ConfigError
from retter.net import systemd
from retter.net.handover import Inheritance, predecessors_log_format


def inherited(monkeypatch: pytest.MonkeyPatch, **given: Any) -> Inheritance:
    monkeypatch.setattr(systemd, "take_listeners", list[socket.socket])
    ready, its_ready = os.pipe()
    os.close(ready)
    said = {"listeners": [], "kept": [], "ready": its_ready, "log_format": "json", "store": -1}
    monkeypatch.setenv("_RETTER_TAKEOVER", json.dumps(said | given))
    return Inheritance()


def test_a_process_of_an_earlier_version_gives_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    inheritance = inherited(monkeypatch)
    assert (inheritance.state, inheritance.memory_fd) == (None, -1)
    inheritance.serving()


def test_the_state_comes_by_descriptors_that_no_child_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, its = socket.socketpair()
    memory = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(memory, True)
    its.set_inheritable(True)
    with ours:
        inheritance = inherited(monkeypatch, state=its.detach(), memory=memory)
        assert inheritance.state is not None
        with inheritance.state as state:
            ours.sendall(b"x")
            assert state.recv(1) == b"x"
            assert not state.get_inheritable()
        assert inheritance.memory_fd == memory
        assert not os.get_inheritable(memory)
        os.close(memory)
        inheritance.serving()


@pytest.mark.parametrize(
    "text",
    [
        "junk", "[]", "1", "[" * 30_000, '{"listeners": []}', '{"listeners": 1}',
        '{"listeners": ["a"], "kept": [], "ready": -1, "store": -1}',
        '{"listeners": [99999], "kept": [], "ready": -1, "store": -1}',
        '{"listeners": [], "kept": [], "ready": 99999, "store": -1}',
        '{"listeners": [], "kept": [], "ready": 2, "store": -1, "workers": 5}',
        f'{{"listeners": [], "kept": [], "ready": {1 << 70}, "store": -1}}',
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_what_no_retter_has_said_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(systemd, "take_listeners", list[socket.socket])
    monkeypatch.setenv("_RETTER_TAKEOVER", text)
    predecessors_log_format()  # of no use then, and no fault
    with pytest.raises(ConfigError, match=r"^_RETTER_TAKEOVER: [^\n]+$"):
        Inheritance()
