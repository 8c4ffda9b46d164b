"""Messages to systemd, and sockets from it: sd_notify(3) and sd_listen_fds(3).

Without systemd, none of this does anything.
"""

import os
import socket
import time
from contextlib import suppress
from typing import Final

from retter.config.settings import ConfigError

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START


def notify(*lines: str) -> None:
    """Send lines to the service manager, for example `notify("READY=1", "STATUS=serving")`."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]  # a name in the abstract namespace
    # A manager that has gone or does not read must not make this process fail.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        manager.sendto("\n".join(lines).encode(), path)


def notify_reloading() -> None:
    """Report that a reload has begun; `READY=1` reports its end."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_wanted() -> bool:
    """Return whether the manager expects `WATCHDOG=1` regularly (WatchdogSec= in the unit)."""
    pid = os.environ.get("WATCHDOG_PID")
    return bool(os.environ.get("WATCHDOG_USEC")) and pid in (None, "", str(os.getpid()))


def environment_of_successor() -> dict[str, str]:
    """Return the environment for a process that replaces us at the service manager."""
    environment = dict(os.environ)
    if watchdog_wanted():
        environment.pop("WATCHDOG_PID", None)  # it names this process; the successor may report too
    return environment


def take_listeners() -> list[socket.socket]:
    """Return the listening sockets that have been handed over. The second call returns none.

    Raises:
        ConfigError: One of them is none.
    """
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []  # meant for another process
    numbers = range(_FIRST_FD, _FIRST_FD + int(count[:9]))
    listeners = [_listener(number) for number in numbers]
    for listener in listeners:
        listener.set_inheritable(False)
    return listeners


def _listener(number: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=number)
    except OSError as error:
        raise _no_listener(number, error.strerror) from None
    why = _fault(listener)
    if why:
        listener.close()
        raise _no_listener(number, why)
    return listener


def _fault(listener: socket.socket) -> str:
    """Return why a socket accepts no connections; "" if it does. One that is bound is made to."""
    if listener.type != socket.SOCK_STREAM:
        return "it is for datagrams"
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        try:
            listener.listen()
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _no_listener(number: int, why: str | None) -> ConfigError:
    return ConfigError(
        f"LISTEN_FDS: descriptor {number} is no socket that accepts connections: {why}; the unit "
        "of the socket needs ListenStream= and Accept=no"
    )
