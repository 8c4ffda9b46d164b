"""Listening sockets that outlive the process: from systemd, or from the previous process.

On SIGUSR2 a process starts its successor and passes it the listening sockets themselves, not others
at the same address. So no connection is refused or lost, whichever process the kernel has queued it
for. When the successor serves, it says so with one byte, and the old process stops accepting and
drains. A successor that ends before that changes nothing.

It also gets one end of a pair of sockets and a file in memory. By these the old process tells what
it knows (proxy/state_giver.py). Nothing of that stands in arguments or in the environment.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

from retter.config.settings import ConfigError
from retter.config.units import ListenAddress
from retter.net import systemd

# From a process to its successor: the numbers of descriptors, and how the log is written.
_VARIABLE: Final = "_RETTER_TAKEOVER"

# A successor's messages when it serves. An earlier version takes any octet for the first one.
_SERVES: Final = b"1"
_STORES_ALIKE: Final = b"2"

_EVERY_INTERFACE: Final = ("::", "0.0.0.0")


def _fits(listener: socket.socket, address: ListenAddress) -> bool:
    """Return whether a socket listens on an address. If its port is 0, any port is right."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return address.kind == "unix" and name == address.path
    if address.kind == "unix" or address.port not in (0, name[1]):
        return False
    if not address.host:
        return name[0] in _EVERY_INTERFACE
    with suppress(OSError):
        addresses = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return any(where[4][0] == name[0] for where in addresses)
    return False


def predecessors_log_format() -> str:
    """Return the log format of the process that has started this one; "" if there is none.

    A successor writes to the same log before it has read its own settings.
    """
    try:
        return str(_given().get("log_format", ""))
    except ConfigError:
        return ""


def _given() -> dict[str, Any]:
    """Return what the process that has started this one says; {} if there is none.

    Raises:
        ConfigError: It is not from a RETTER.
    """
    text = os.environ.get(_VARIABLE, "")
    try:
        given: Any = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise _not_given(str(error)) from None
    if not isinstance(given, dict):
        raise _not_given("it is no object of JSON")
    return cast("dict[str, Any]", given)


def _not_given(why: str) -> ConfigError:
    return ConfigError(
        f"{_VARIABLE}: only a RETTER that hands over sets it, for its successor: remove it from "
        f"the environment ({why})"
    )


class Inheritance:
    """The sockets and descriptors that this process received at its start.

    Raises:
        ConfigError: What it is told about them does not come from a RETTER.
    """

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = systemd.take_listeners()
        self._kept: set[str] = {str(one.getsockname()) for one in self._listeners}
        self._lent: set[str] = set()  # the previous process keeps these if this one does not serve
        self._left: list[str] = []  # paths of lent sockets: unused once this process serves
        self._ready_fd = -1
        self.store_fd = -1  # the lock of `--store`, which both have during a takeover
        self.state: socket.socket | None = None  # to the previous process, which sends its state
        self.memory_fd = -1  # the file in memory with its snapshot, or the memory of its workers
        # The previous process's message about its workers; None: no such process, or it has none.
        self.workers: dict[str, Any] | None = None
        self.takes_over = False  # from a previous process
        given = _given()
        os.environ.pop(_VARIABLE, None)
        try:
            if given:
                self._receive(given)
        except (LookupError, TypeError, ValueError, OverflowError, OSError) as error:
            raise _not_given(f"{type(error).__name__}: {error}") from None

    def _receive(self, given: dict[str, Any]) -> None:
        lent = [socket.socket(fileno=number) for number in given["listeners"]]
        self._lent = {str(one.getsockname()) for one in lent}
        self._listeners += lent
        self._kept |= set(given["kept"])
        os.set_inheritable(given["ready"], False)
        self._ready_fd = given["ready"]
        self.store_fd = given["store"]
        workers = given.get("workers")
        if not isinstance(workers, dict | None):
            raise TypeError("workers")
        self.takes_over, self.workers = True, workers
        self._take_state(given.get("state", -1), given.get("memory", -1))
        for listener in self._listeners:
            listener.set_inheritable(False)

    @classmethod
    def of_supervisor(cls, listeners: Sequence[socket.socket]) -> "Inheritance":
        """Return the inheritance of a worker: sockets that its supervisor keeps."""
        inheritance = cls()
        inheritance._listeners = list(listeners)
        inheritance._kept = {str(one.getsockname()) for one in listeners}
        return inheritance

    def _take_state(self, state_fd: int, memory_fd: int) -> None:
        if state_fd >= 0:  # else it is of an earlier version
            self.state = socket.socket(fileno=state_fd)
            self.state.set_inheritable(False)
        if memory_fd >= 0:
            self.memory_fd = memory_fd
            os.set_inheritable(memory_fd, False)

    def take(self, address: ListenAddress) -> socket.socket | None:
        """Return the inherited socket that listens on this address, if there is one."""
        for listener in self._listeners:
            if _fits(listener, address):
                self._listeners.remove(listener)
                listener.setblocking(False)
                return listener
        return None

    def is_kept(self, listener: socket.socket) -> bool:
        """Return whether another process keeps the socket when this one ends."""
        name = str(listener.getsockname())
        return name in self._kept or name in self._lent

    def close_rest(self) -> list[str]:
        """Close the sockets that nobody has taken, and return their addresses.

        The paths of those that the previous process has lent are removed in `serving`.
        """
        rest = [str(listener.getsockname()) for listener in self._listeners]
        for listener in self._listeners:
            if listener.family == socket.AF_UNIX and str(listener.getsockname()) not in self._kept:
                self._left.append(listener.getsockname())
            listener.close()
        self._listeners.clear()
        return rest

    def serving(self, *, stores_alike: bool = False) -> None:
        """Tell the previous process, if there is one, that it may stop.

        Args:
            stores_alike: This process may show what the previous one stores from now on.
        """
        self._lent.clear()
        for path in self._left:
            with suppress(OSError):
                os.unlink(path)
        self._left.clear()
        if self._ready_fd >= 0:
            with suppress(OSError):
                os.write(self._ready_fd, _STORES_ALIKE if stores_alike else _SERVES)
            self.close_ready()

    def close_ready(self) -> None:
        """Close the end of the pipe that shows the previous process whether this one runs."""
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1

    def start_successor(
        self,
        listeners: Sequence[socket.socket],
        log_format: str = "",
        store_fd: int = -1,
        state_fd: int = -1,
        memory_fd: int = -1,
        workers: dict[str, Any] | None = None,
    ) -> "Successor":
        """Start the same command again.

        It gets these sockets, the log format, the lock of `--store` if there is one, and a socket
        and a file through which this process sends its state. A supervisor also sends a message
        about its workers, and the file is their shared memory.
        """
        ready, its_ready = os.pipe()
        numbers = [listener.fileno() for listener in listeners]
        given = {
            "listeners": numbers, "kept": sorted(self._kept), "ready": its_ready,
            "log_format": log_format, "store": store_fd, "state": state_fd, "memory": memory_fd,
            "workers": workers,
        }  # fmt: skip
        command = [sys.executable, *sys.orig_argv[1:]]
        environment = systemd.environment_of_successor() | {_VARIABLE: json.dumps(given)}
        lent = [*numbers, *[one for one in (store_fd, state_fd, memory_fd) if one >= 0]]
        for number in (*lent, its_ready):
            os.set_inheritable(number, True)
        try:
            pid = os.posix_spawn(sys.executable, command, environment)
        except OSError:
            os.close(ready)
            raise
        finally:
            for number in lent:
                os.set_inheritable(number, False)
            os.close(its_ready)
        return Successor(pid, ready)


class Successor:
    """A process that will take over.

    Attributes:
        ready_fd: Readable when it serves or has ended.
        stores_alike: It serves, and may show what this process stores until its end.
    """

    def __init__(self, pid: int, ready_fd: int) -> None:
        self.pid = pid
        self.ready_fd = ready_fd
        self._killed = False
        self.stores_alike = False

    def serves(self) -> bool:
        """Return whether it has taken over; call this once, when ready_fd is readable."""
        answer = os.read(self.ready_fd, 1)
        os.close(self.ready_fd)
        self.stores_alike = answer == _STORES_ALIKE
        return bool(answer) and not self._killed  # it may have said so just before it was killed

    def end(self) -> None:
        """End the process: this one stops itself, so no successor is needed."""
        with suppress(OSError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process: it took too long."""
        self._killed = True
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)

    def exit_code(self) -> int:
        """Wait until a process that has failed has ended, and return its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
