"""The listening sockets of all workers. The supervisor keeps them until the end.

Each worker has a socket of its own for each address (SO_REUSEPORT), and the kernel spreads the
clients over them by their addresses. When a worker is killed, its socket stays open here, so its
queue waits for the next worker, and no client is reset. If the next one does not come soon, the
socket stops listening, or a part of all clients would wait for it without an end. A path, and a
socket that systemd has made, exists once: all workers accept from the same queue.
"""

import socket
from dataclasses import replace
from typing import Final

from retter.config.settings import ADMIN_DEFAULT, Settings
from retter.config.units import ListenAddress, parse_listen
from retter.net.handover import Inheritance
from retter.net.sockets import (
    ListenError,
    apart_from,
    is_everywhere,
    is_shared,
    listen_beside,
    listen_privately_on,
    listen_together_on,
    listens,
    unlink,
    url_of,
)
from retter.telemetry.log import get_logger

# Ports that are tried for the admin listener if none was named.
ADMIN_TRIES: Final = 10

log = get_logger()


class WorkerSockets:
    """The sockets of all workers, by address.

    Attributes:
        addresses: The addresses as an operator would write them.
        admin: The socket of the admin listener, which the first worker has; None without one.

    Raises:
        ListenError: An address cannot be listened on.
    """

    def __init__(self, settings: Settings, workers: int, inheritance: Inheritance) -> None:
        self._inheritance = inheritance
        self._groups: list[list[socket.socket]] = []
        self.admin: socket.socket | None = None
        self.addresses: list[str] = []
        try:
            for text in settings.listen:
                address = parse_listen(text)
                self._groups.append(self._group(address, workers))
                self.addresses.append(url_of(self._groups[-1][0], address.tls))
            self.admin = self._open_admin(settings)
        except ListenError:
            self.close()
            raise

    def _group(self, address: ListenAddress, workers: int) -> list[socket.socket]:
        found: list[socket.socket] = []
        while len(found) < workers:
            inherited = self._inheritance.take(address)
            if inherited is None:
                break
            found.append(inherited)
        if not found:
            return listen_together_on(address, workers)
        if is_shared(found[0]):
            there = replace(address, port=found[0].getsockname()[1])
            found += listen_beside(there, workers - len(found))
        return found

    def _open_admin(self, settings: Settings) -> socket.socket | None:
        where = ADMIN_DEFAULT if settings.admin == "auto" else settings.admin
        if where in ("off", ""):
            return None
        address = parse_listen(where)
        tries = ADMIN_TRIES if settings.admin == "auto" else 1
        wanted = [replace(address, port=address.port + more) for more in range(tries)]
        if settings.admin == "auto":
            wanted = apart_from(settings.upstream, wanted)
        for one in wanted:
            if (inherited := self._inheritance.take(one)) is not None:
                return inherited
        first = ""
        for one in wanted:
            try:
                return listen_privately_on(one)
            except ListenError as error:
                if settings.admin != "auto":
                    raise
                first = first or str(error)
        log.warning("no-admin", error=first, advice="choose another address with --admin")
        return None

    def of(self, index: int) -> list[socket.socket]:
        """Return the sockets of one worker."""
        sockets = [group[index % len(group)] for group in self._groups]
        return [*sockets, self.admin] if index == 0 and self.admin is not None else sockets

    def stop_listening(self, index: int) -> None:
        """Have the kernel give new clients to the other workers; who waits here is reset.

        The sockets stay bound, and listen again when a process serves on them.
        """
        for group in self._groups:
            # A shutdown of a socket that does not listen would be inherited by all that it accepts
            # later: they would be at their end before their first byte.
            if is_shared(group[0]) and listens(group[index]):
                group[index].shutdown(socket.SHUT_RDWR)

    @property
    def admin_address(self) -> str:
        """The address of the admin listener; "" without one."""
        return "" if self.admin is None else url_of(self.admin)

    @property
    def everywhere(self) -> bool:
        """Whether every interface of this machine accepts connections."""
        return any(is_everywhere(group[0]) for group in self._groups)

    def all(self) -> list[socket.socket]:
        """Return all sockets, each once."""
        sockets = [one for group in self._groups for one in group]
        return [*sockets, self.admin] if self.admin is not None else sockets

    def close(self, *, handed_over: bool = False) -> None:
        """Close all sockets here, and remove their paths unless somebody keeps them."""
        for one in self.all():
            if one.fileno() >= 0:
                if not handed_over and not self._inheritance.is_kept(one):
                    unlink(one)
                one.close()
