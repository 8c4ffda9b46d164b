"""A store that outlives the process: its disk, and the rules by which it was filled.

A response that was public by other rules may be private by the present ones. So the rules are kept
beside the responses, and a store is emptied if its rules distinguished fewer requests.
"""

import os
from typing import TYPE_CHECKING, Any, Final

from retter.config.settings import ConfigError
from retter.http.known_names import (
    ADDRESS_FIELDS,
    GEO_FIELDS,
    IGNORABLE_COOKIES,
    NEUTRAL_FIELDS,
    REQUEST_ID_FIELDS,
)
from retter.store.owner import OwnerRules, tells_more_apart
from retter.store.store import ResponseStore

if TYPE_CHECKING:
    import asyncio

    from retter.base.worker_place import WorkerPlace
    from retter.config.settings import Settings
    from retter.disk.shelf import DiskShelf

_RULES: Final = "rules"  # the name of the note


def open_disk(
    settings: "Settings",
    loop: "asyncio.AbstractEventLoop",
    *,
    lock_fd: int = -1,
    faults: bool = False,
    place: "WorkerPlace | None" = None,
) -> "DiskShelf | None":
    """Open the folder of `--store`; None without it.

    Args:
        lock_fd: The lock of the folder, from the previous process; -1: there is none.
        faults: The interpreter may note why this process dies.
        place: Of this process among several workers.

    Raises:
        ConfigError: It cannot be used.
    """
    if not settings.store:
        if lock_fd >= 0:  # the process before had one: another RETTER may use it when that ends
            os.close(lock_fd)
        return None
    try:
        from retter.disk.opening import open_shelf
        from retter.disk.threads import Thread
    except ImportError:
        raise ConfigError(
            "store: needs the lmdb package, which is not installed; pip install 'retter[store]'"
        ) from None
    reader, writer = Thread(loop, "store-read"), Thread(loop, "store-write")
    if place is not None:
        from retter.disk.shared_opening import open_shared

        return open_shared(settings, place, reader, writer, loop.time, faults=faults)
    return open_shelf(settings, reader, writer, loop.time, lock_fd=lock_fd, faults=faults)


def written_rules(rules: OwnerRules, policy: str) -> dict[str, Any]:
    """Return the rules that separate owners, in a form that is kept beside the stored responses."""
    known = (*NEUTRAL_FIELDS, *ADDRESS_FIELDS, *GEO_FIELDS, *REQUEST_ID_FIELDS)
    lists = {
        "neutral_headers": rules.neutral_headers,
        "session_cookies": rules.session_cookies,
        "ignore_cookies": rules.ignore_cookies,
        "ignore_params": rules.ignore_params,
        "vary_on": rules.vary_on,
        "known_fields": known,
        "known_cookies": IGNORABLE_COOKIES,
    }
    return {
        "policy": policy,
        "ignore_host": rules.ignore_host,
        "ignore_query": rules.ignore_query,
        **{
            name: sorted([one.decode("latin-1") for one in values])
            for name, values in lists.items()
        },
    }


def may_be_kept(noted: Any, rules: OwnerRules, policy: str) -> bool:
    """Return whether responses stored by the noted rules may be shown by the present ones."""
    now = written_rules(rules, policy)
    if noted == now:
        return True
    try:
        if noted["policy"] != policy:
            return False
        # A field or cookie that identified nobody by the noted rules, and may do so now.
        for name in ("known_fields", "known_cookies"):
            if not set(noted[name]).issubset(now[name]):
                return False
        before = OwnerRules(
            secret=rules.secret,
            ignore_host=bool(noted["ignore_host"]),
            ignore_query=bool(noted["ignore_query"]),
            ignore_params=_octets(noted["ignore_params"]),
            ignore_cookies=_octets(noted["ignore_cookies"]),
            neutral_headers=_octets(noted["neutral_headers"]),
            session_cookies=_octets(noted["session_cookies"]),
            vary_on=_octets(noted["vary_on"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return not tells_more_apart(rules, before)


def _octets(texts: list[str]) -> tuple[bytes, ...]:
    return tuple([text.encode("latin-1") for text in texts])


def attach(
    store: ResponseStore, disk: "DiskShelf", rules: OwnerRules, policy: str, now: float
) -> None:
    """Put a disk behind a store, and remove its responses if their rules do not suffice."""
    store.put_behind(disk.behind)
    noted = disk.note_of(_RULES)
    if noted is not None and not may_be_kept(noted, rules, policy):
        store.invalidation.empty(now)
        disk.flush()
    if noted != written_rules(rules, policy):
        keep_rules(disk, rules, policy)
    disk.start()


def keep_rules(disk: "DiskShelf", rules: OwnerRules, policy: str) -> None:
    """Note the rules by which responses are stored from now on."""
    disk.set_note(_RULES, written_rules(rules, policy))
