"""Reads what other boxes have stored, for a request that needs a stored response and has none.

A request is forwarded without this while the application is well.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from retter.base.errors import UpstreamError
from retter.proxy.pool import Dialler
from retter.proxy.request import ParsedRequest
from retter.proxy.services import Services
from retter.proxy.stored_choice import stale_for_error

if TYPE_CHECKING:
    from retter.store.write_behind import Found


def read_far(services: Services, parsed: ParsedRequest, done: Callable[[], None]) -> bool:
    """Read the shared responses for a request; False if that is not worth a wait.

    Args:
        done: Called later: the responses found are in memory, or the read takes too long.
    """
    far = services.far
    if far is None or not parsed.identity.stands_in:
        return False
    keys = far.wants(services.store.awaited_keys(parsed.identity))
    if not keys:
        return False

    def came(found: "dict[bytes, Found]") -> None:
        try:
            for key, one in found.items():
                if not services.store.shelves.promote(key, one):
                    far.cannot_use(key)  # there is no room for it
        finally:
            done()  # nobody else would end the wait

    far.load(keys, came)
    return True


def read_while_held(
    services: Services, parsed: ParsedRequest, exchange: Dialler, error: UpstreamError
) -> None:
    """Read it while the pool holds an exchange for a restart: a stored response ends the hold."""

    def done() -> None:
        now = services.loop.time()
        stored = stale_for_error(services, parsed, now)
        if stored is not None and services.pool.unhold(exchange):
            exchange.connect_failed(error, now, held=True)

    read_far(services, parsed, done)
