"""A request that waits until its stored response is read: from a slow disk, or from another box."""

from typing import TYPE_CHECKING

from retter.proxy.far_lookup import read_far
from retter.proxy.interfaces import Client
from retter.proxy.local_answers import note_client_gone
from retter.proxy.request import ParsedRequest
from retter.proxy.services import Services

if TYPE_CHECKING:
    from retter.store.write_behind import Found


class AwaitedLookup:
    """A client whose answer is decided when what is stored for it has been read."""

    __slots__ = ("_began_at", "_client", "_parsed", "_services")

    def __init__(
        self,
        services: Services,
        client: Client,
        parsed: ParsedRequest,
        began_at: float,
    ) -> None:
        self._services = services
        self._client = client
        self._parsed = parsed
        self._began_at = began_at

    def done(self, found: "dict[bytes, Found]") -> None:
        """The read is done, or takes too long."""
        try:
            for key, one in found.items():
                self._services.store.shelves.promote(key, one)
        finally:
            self.decide()  # nobody else would end its wait

    def decide(self) -> None:
        """Decide about the request now."""
        services = self._services
        if self._client.gone:
            note_client_gone(services, self._client, self._parsed, self._began_at)
            return
        self._client.begin_again(self._parsed, services.loop.time())


def waits_for_disk(services: Services, client: Client, parsed: ParsedRequest) -> bool:
    """Begin to read the entries of a request from the disk; False if there is nothing to read."""
    disk = services.disk
    if disk is None:
        return False
    keys = [key for key in services.store.awaited_keys(parsed.identity) if disk.is_slow(key)]
    if not keys:
        return False
    waiter = AwaitedLookup(services, client, parsed, services.loop.time())
    if not disk.load(keys, waiter.done):
        return False  # too many wait already
    client.await_form()
    return True


def waits_for_far(services: Services, client: Client, parsed: ParsedRequest) -> bool:
    """Begin to read from other boxes for a request; False if there is nothing to wait for."""
    waiter = AwaitedLookup(services, client, parsed, services.loop.time())
    if not read_far(services, parsed, waiter.decide):
        return False
    client.await_form()
    return True
