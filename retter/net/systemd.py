"""Messages to systemd, and sockets from it: sd_notify(3) and sd_listen_fds(3).

Without systemd, none of this does anything.
"""

import os
import socket
import time
from contextlib import suppress
from typing import Final

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
    """Return the listening sockets that have been handed over. The second call returns none."""
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []  # meant for another process
    listeners = [
        socket.socket(fileno=number) for number in range(_FIRST_FD, _FIRST_FD + int(count))
    ]
    for listener in listeners:
        listener.set_inheritable(False)
    return listeners
