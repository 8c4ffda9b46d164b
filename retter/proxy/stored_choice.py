"""Which stored response may answer a request, if any.

The exchange asks before it decides, after a rejection and after a failure; `retter why` asks the
same functions with `peeking`, so that nothing is counted or evicted by its question. Which entry
belongs to a request is the store's decision (`ResponseStore.find`).
"""

from retter.proxy.request import ParsedRequest
from retter.proxy.services import Services
from retter.store.record import CODING, Record, as_stored
from retter.store.store import StoredResponse


def entry_to_spare(
    services: Services, parsed: ParsedRequest, now: float, *, peeking: bool = False
) -> Record | None:
    """Return the entry that may be used without asking the application."""
    entry = services.store.find(parsed.identity, parsed.head, now, False, peeking)
    return entry if entry is None or not entry[CODING] else if_readable(services, parsed, entry)


def if_readable(services: Services, parsed: ParsedRequest, entry: Record) -> Record | None:
    """Return the entry if this client can read it: as it is coded, or decoded by RETTER."""
    if not entry[CODING] or services.decoding.readable(as_stored(entry), parsed.head):
        return entry
    return None


def stale_for_error(
    services: Services, parsed: ParsedRequest, now: float, *, peeking: bool = False
) -> StoredResponse | None:
    """Return the stored response to send where otherwise an error would be sent.

    It may be superseded: that is better than an error (RFC 5861 section 4).
    """
    entry = services.store.find(parsed.identity, parsed.head, now, True, peeking)
    if entry is None or if_readable(services, parsed, entry) is None:
        return None
    return as_stored(entry)


def stored_for_rejected(
    services: Services,
    parsed: ParsedRequest,
    entry: Record | None,
    now: float,
    *,
    peeking: bool = False,
) -> StoredResponse | None:
    """Return the answer to a request that the breaker does not let through; None: refuse it.

    Args:
        entry: The stored entry that the breaker took into account, if there was one.
    """
    if entry is not None:
        return as_stored(entry)
    return stale_for_error(services, parsed, now, peeking=peeking)
