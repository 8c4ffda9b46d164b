"""Reads what other boxes have stored, for a request that needs a stored response and has none.

A request is forwarded without this while the application is well.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from retter.proxy.request import ParsedRequest
from retter.proxy.services import Services

if TYPE_CHECKING:
    from retter.store.write_behind import Found


def read_far(services: Services, parsed: ParsedRequest, done: Callable[[], None]) -> bool:
    """Read what boxes share for a request; False if that is not worth a wait.

    Args:
        done: Called later, when what was found is in memory, or when it takes too long.
    """
    far = services.far
    if far is None or not parsed.identity.stands_in:
        return False
    keys = far.wants(services.store.awaited_keys(parsed.identity))
    if not keys:
        return False

    def came(found: "dict[bytes, Found]") -> None:
        for key, one in found.items():
            if not services.store.shelves.promote(key, one):
                far.cannot_use(key)  # there is no room for it
        done()

    far.load(keys, came)
    return True
