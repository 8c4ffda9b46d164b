"""The stored entries in memory, for an operator who looks for a URL.

A request looks through some thousand entries at most, so that no visitor waits for it. Its answer
says where the next request continues. Owners are never named: an entry belongs to everyone, or it
is private.
"""

from itertools import islice
from typing import Any, Final

from retter.admin.message import AdminError, Parameters, one
from retter.proxy.services import Services
from retter.store.policy import key_parts
from retter.store.record import AGE_MAX as AGE_MAX_S
from retter.store.record import BODY, STATUS, STORED_AT, SUPERSEDED, WITHDRAWN, Record

LOOKED_AT_MAX: Final = 4000  # keys a request: 2 to 4 ms
ROWS_MAX: Final = 50  # a request; some 200 octets each
# Keys that are skipped before that: 2 ms. Of a larger store, only the newest can be listed.
SKIP_MAX: Final = 250_000
OWNERS: Final = ("all", "everyone", "private")


def stored_document(services: Services, parameters: Parameters) -> dict[str, Any]:
    """Return stored entries whose URL contains `search`, the newest first.

    Args:
        parameters: `search`, `owner` (one of OWNERS), and `skip`: the `next` of the request before.

    Raises:
        AdminError: 400: a parameter is wrong.
    """
    search = one(parameters, "search").encode("utf-8", "surrogateescape")
    owner = one(parameters, "owner") or OWNERS[0]
    if owner not in OWNERS:
        raise AdminError(400, f"owner must be one of {', '.join(OWNERS)}")
    text = one(parameters, "skip") or "0"
    if not text.isdecimal() or len(text) > len(str(SKIP_MAX)) or int(text) > SKIP_MAX:
        raise AdminError(400, f"skip must be a number from 0 to {SKIP_MAX}")
    skip = int(text)
    slots, now = services.store.shelves.slots, services.loop.time()
    rows: list[dict[str, Any]] = []
    looked = 0
    for key in islice(reversed(slots), skip, skip + LOOKED_AT_MAX):
        looked += 1
        slot = slots[key]
        who, url = key_parts(key)
        if search in url and owner in ("all", "private" if who else "everyone"):
            rows.append(_row(url, bool(who), slot, now))
            if len(rows) >= ROWS_MAX:
                break
    end = skip + looked
    return {
        "entries": rows,
        "looked_through": end,
        "of": len(slots),
        "next": end if end < len(slots) and end <= SKIP_MAX else None,
    }


def _row(url: bytes, private: bool, slot: tuple[Record, ...], now: float) -> dict[str, Any]:
    newest = slot[0]
    return {
        "url": url.decode("latin-1"),
        "owner": "private" if private else "everyone",
        "status": newest[STATUS],
        "age_s": round(max(0.0, now - newest[STORED_AT]), 1),
        "bytes": sum([len(one[BODY]) for one in slot]),
        "variants": len(slot),
        "superseded": bool(newest[SUPERSEDED]),
        "withdrawn": newest[AGE_MAX_S] == WITHDRAWN,
    }
