"""Listening sockets: how they are made, named and closed."""

import asyncio
import contextlib
import os
import socket
import stat
from dataclasses import replace

from retter.config.units import ListenAddress, parse_upstream, reaches

# Connections that the kernel completes before they are accepted. In a burst the loop accepts late,
# and a client that does not fit here waits for a retransmission of seconds.
BACKLOG = 2048


class ListenError(Exception):
    """An address cannot be listened on; the message says which, why, and what to do."""


def _reason(error: OSError, address: ListenAddress) -> str:
    advice = {
        "EADDRINUSE": "another program listens there: stop it or choose another --listen",
        "EACCES": "not permitted: ports below 1024 need root or CAP_NET_BIND_SERVICE",
        "EADDRNOTAVAIL": "this machine has no such address",
    }
    host = f"[{address.host}]" if ":" in address.host else address.host or "*"
    place, name = f"{host}:{address.port}", _errno_name(error)
    if address.kind == "unix":
        place = address.path
        del advice["EACCES"]
        if not _is_socket(place):
            advice["EADDRINUSE"] = "there is something that is no socket: remove it"
    elif name == "EINVAL" and "%" not in host:
        advice["EINVAL"] = "a link-local address needs its interface: [fe80::1%eth0]:80"
    return f"cannot listen on {place}: {advice.get(name, error.strerror or str(error))}"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _errno_name(error: OSError) -> str:
    import errno

    return errno.errorcode.get(error.errno or 0, "")


def _tcp_socket(address: ListenAddress, *, shared: bool = False) -> socket.socket:
    if address.host:
        # As bytes: for a str, Python would load tables for international domain names (0.2 MB).
        host = address.host.encode() if address.host.isascii() else address.host
        family, _, _, _, where = socket.getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(where[:2], family=family, backlog=BACKLOG, reuse_port=shared)
    if socket.has_dualstack_ipv6():  # one socket for IPv4 and IPv6, so that port 0 is one port
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("", address.port),
                family=socket.AF_INET6,
                backlog=BACKLOG,
                reuse_port=shared,
                dualstack_ipv6=True,
            )
    return socket.create_server(("", address.port), backlog=BACKLOG, reuse_port=shared)


def _unix_socket(address: ListenAddress) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(address.path).st_mode) and not _somebody_listens(address.path):
            os.unlink(address.path)  # left behind by a process that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address.path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # or it would wait while the backlog of a stopped process is full
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
        return True


def listen_on(address: ListenAddress) -> socket.socket:
    """Return a listening socket; every user may connect to one with a path, as to a port.

    Raises:
        ListenError: The address cannot be listened on.
    """
    # A web server in front runs as another user. The permissions of the folder keep others out.
    return _listen_on(address, 0o111)


def listen_privately_on(address: ListenAddress) -> socket.socket:
    """Return a listening socket; one with a path is for this user alone (mode 0600).

    Raises:
        ListenError: The address cannot be listened on.
    """
    return _listen_on(address, 0o177)


def listen_together_on(address: ListenAddress, count: int) -> list[socket.socket]:
    """Return `count` sockets that listen on one address; the kernel spreads clients over them.

    The kernel lets any program of this user share the port from then on. So this first makes sure
    that nothing listens there: a second RETTER would silently take a part of the clients.

    Raises:
        ListenError: The address cannot be listened on.
    """
    alone = listen_on(address)
    if address.kind == "unix":
        return [alone]  # a path has only one
    port = alone.getsockname()[1]
    alone.close()
    return listen_beside(replace(address, port=port), count)


def listen_beside(address: ListenAddress, count: int) -> list[socket.socket]:
    """Return `count` more sockets for an address on which such sockets may listen already.

    Raises:
        ListenError: The address cannot be listened on.
    """
    with contextlib.ExitStack() as opened:
        sockets = [
            opened.enter_context(_listen_on(address, 0o111, shared=True)) for _ in range(count)
        ]
        opened.pop_all()
    return sockets


def apart_from(upstream: str, addresses: list[ListenAddress]) -> list[ListenAddress]:
    """Return those of the addresses that the application does not have, although it may be down.

    An admin listener there would get the requests of visitors, and the application no port.
    """
    application = parse_upstream(upstream)
    return [one for one in addresses if not reaches(application, one)]


def is_shared(listener: socket.socket) -> bool:
    """Return whether others may listen on the same address (SO_REUSEPORT)."""
    return listener.family != socket.AF_UNIX and bool(
        listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    )


def listens(listener: socket.socket) -> bool:
    """Return whether a socket accepts connections."""
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _listen_on(address: ListenAddress, umask: int, *, shared: bool = False) -> socket.socket:
    before = os.umask(umask)  # before the path exists, so that it never has another mode
    try:
        if address.kind == "unix":
            listener = _unix_socket(address)
        else:
            listener = _tcp_socket(address, shared=shared)
    except OSError as error:
        raise ListenError(_reason(error, address)) from error
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def is_everywhere(listener: socket.socket) -> bool:
    """Return whether a socket accepts connections on every interface of this machine."""
    name = listener.getsockname()
    return listener.family != socket.AF_UNIX and name[0] in ("::", "0.0.0.0")


def url_of(listener: socket.socket, tls: bool = False) -> str:
    """Return the address of a listening socket as one would type it."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    if is_everywhere(listener):
        host = "127.0.0.1"
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def unlink(listener: socket.socket) -> None:
    """Remove the path of a socket that has one."""
    if listener.family == socket.AF_UNIX and listener.fileno() >= 0:
        with contextlib.suppress(OSError):
            os.unlink(listener.getsockname())


# Rounds of the loop from accepting a connection to `connection_made`, and from data in the kernel
# to `data_received`, on asyncio's loop and uvloop.
_ROUNDS = 2


async def read_what_has_come() -> None:
    """Return when the loop has read its sockets and passed the data to their protocols."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


async def close_server(server: asyncio.Server, listener: socket.socket) -> None:
    """Accept no more connections, and return when each accepted one has a protocol.

    For a round or two of the loop, an accepted connection belongs to nobody, and closing would
    reset it silently: asyncio's own loop makes the transport in a task, and makes none once the
    server is closed; uvloop makes the connection in a callback. So asyncio's loop stops accepting
    first (on uvloop, which has no reader there, this does nothing), and both get their rounds.
    """
    server.get_loop().remove_reader(listener)
    try:
        await read_what_has_come()
    finally:
        server.close()
        listener.close()
    await read_what_has_come()
