"""The stored entries, for an operator who looks for a URL.

Of one process, these are the entries in memory. A request looks through some thousand at most, so
that no visitor waits for it, and its answer says where the next request continues. Of several
workers, these are the entries that all of them share, and those near each of them: a thread looks
through them (disk/page_list.py). Owners are never named: an entry belongs to everyone, or it is
private.
"""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from retter.admin.message import AdminError, Parameters, one
from retter.proxy.services import Services
from retter.store.policy import key_parts
from retter.store.record import AGE_MAX as AGE_MAX_S
from retter.store.record import BODY, STATUS, STORED_AT, SUPERSEDED, WITHDRAWN, Record

if TYPE_CHECKING:
    from retter.disk.shared_shelf import SharedShelf

LOOKED_AT_MAX: Final = 4000  # keys a request: 2 to 4 ms
ROWS_MAX: Final = 50  # a request; some 200 octets each
# Keys that are skipped before that: 2 ms. Of a larger store, only the newest can be listed.
SKIP_MAX: Final = 250_000
OWNERS: Final = ("all", "everyone", "private")

Document = dict[str, Any]


def stored_soon(
    services: Services, parameters: Parameters, done: Callable[[Document], None]
) -> None:
    """List stored entries whose URL contains `search`, the newest first.

    Args:
        parameters: `search`, `owner` (one of OWNERS), and `skip`: the `next` of the request before.
        done: Called with the document: at once, or within LIST_S (disk/) if there are workers.

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
    if services.place is None or services.disk is None:
        done(_in_memory(services, search, owner, int(text)))
        return
    from retter.disk.shared_shelf import SharedShelf

    assert isinstance(services.disk, SharedShelf), "lasting.py opens it for a worker"
    _of_workers(services.disk, search, owner, int(text), done)


def _of_workers(
    disk: "SharedShelf", search: bytes, owner: str, skip: int, done: Callable[[Document], None]
) -> None:
    from retter.disk.page_answers import Wanted
    from retter.disk.page_list import Listing

    def found(listing: Listing) -> None:
        wall = disk.wall()
        rows = [
            {
                "url": row.url,
                "owner": "private" if row.private else "everyone",
                "status": row.status,
                "age_s": round(max(0.0, wall - row.stored_at), 1),
                "bytes": row.size,
                "variants": row.variants,
                "superseded": row.superseded,
                "withdrawn": row.withdrawn,
            }
            for row in listing.rows
        ]
        done(
            {
                "entries": rows,
                "looked_through": listing.looked_through,
                "of": listing.of,
                "next": listing.next,
                "complete": listing.complete,
            }
        )

    private = None if owner == "all" else owner == "private"
    disk.list_pages(Wanted(search, private), skip, ROWS_MAX, found)


def _in_memory(services: Services, search: bytes, owner: str, skip: int) -> Document:
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
        "complete": True,
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
