"""The addresses of the application's name, best first.

The name is resolved for every new connection, so that its changes take effect. While the resolver
fails, the last known addresses are used: a connection to them may well succeed, and without them
the site would be down for a fault that is not the application's. An answer that the name does not
exist is not a failure: the old address may belong to somebody else by now.
"""

import asyncio
import errno
import socket
from typing import Final

from retter.config.units import UpstreamAddress
from retter.net.supervision import start_task

# A working resolver answers within milliseconds. The C library repeats a lost query only after 5 s:
# too late for a connection attempt of 3 s (the default).
RESOLVE_S: Final = 1.0

# RFC 6761 section 6.3: the name means this machine, by either protocol. Applications listen on one
# of the two or on both, and /etc/hosts usually has only one.
LOOPBACK_NAME: Final = "localhost"
LOOPBACK_HOSTS: Final = ("127.0.0.1", "::1")

# A resolver's answers about the name: it does not exist, or it has no address. EAI_AGAIN and all
# others are failures of the resolver itself. Not every C library has the second of these two.
_ANSWERS: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def is_numeric(host: str) -> bool:
    """Return whether a host is an IPv4 or IPv6 address, with or without a zone, and not a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def _is_failure(error: OSError) -> bool:
    return not (isinstance(error, socket.gaierror) and error.errno in _ANSWERS)


class Resolver:
    """The addresses of one application.

    Attributes:
        fault: Why the last known addresses are used; "" while the resolver answers.
        failures: Lookups that have failed.
    """

    def __init__(self, address: UpstreamAddress, loop: asyncio.AbstractEventLoop) -> None:
        self._address = address
        self._loop = loop
        self._fixed: tuple[str, ...] = ()
        if is_numeric(address.host):
            self._fixed = (address.host,)
        elif address.host.lower() == LOOPBACK_NAME:
            self._fixed = LOOPBACK_HOSTS
        self._known: list[str] = []  # the addresses in the resolver's last answer
        self._works = ""  # the address of the last successful connection
        self._lookup: asyncio.Task[OSError | None] | None = None
        self.fault = ""
        self.failures = 0

    async def hosts(self, within_s: float) -> list[str]:
        """Return the addresses, the one that worked last before the others.

        Args:
            within_s: The time for the whole connection attempt; the look-up may take a part of it.

        Raises:
            OSError: The name has no address.
        """
        hosts = self._fixed or await self._look_up(min(RESOLVE_S, within_s / 2))
        return sorted(hosts, key=lambda host: host != self._works)

    def worked(self, host: str) -> None:
        """Note that a connection to that address has succeeded."""
        self._works = host

    def close(self) -> None:
        """Stop asking."""
        if self._lookup is not None:
            self._lookup.cancel()

    async def _look_up(self, wait_s: float) -> list[str]:
        # All requests at the same time share one lookup: each takes a thread, and a resolver that
        # hangs would soon occupy all threads.
        if self._lookup is None:
            self._lookup = start_task(self._loop, self._ask(), "looking the application's name up")
        if self.fault and self._known:
            return self._known  # at once: the lookup goes on, and its result serves the next one
        try:
            async with asyncio.timeout(wait_s if self._known else None):
                error = await asyncio.shield(self._lookup)
        except TimeoutError:
            self._fail("it does not answer")
            return self._known
        if not self._known:
            raise error or OSError(errno.EADDRNOTAVAIL, "the name has no address")
        return self._known

    async def _ask(self) -> OSError | None:
        """Look the name up. Return the error instead of raising it: perhaps no request waits."""
        address = self._address
        try:
            answers = await self._loop.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM
            )
        except OSError as error:
            if _is_failure(error):
                self._fail(error.strerror or str(error))
            else:
                self._known, self.fault = [], ""
            return error
        finally:
            self._lookup = None
        self._known = list(dict.fromkeys([str(where[0]) for *_, where in answers]))
        self.fault = ""
        return None

    def _fail(self, fault: str) -> None:
        self.failures += 1
        if self._known:
            self.fault = fault
