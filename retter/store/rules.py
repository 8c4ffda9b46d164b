"""The limits of the store, and the figures that it keeps about itself."""

from dataclasses import dataclass, field
from typing import Final

from retter.store.policy import StorePolicy

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRules:
    """Limits of the store. `secret` is the key of the hashes of fields that Vary names."""

    secret: bytes = field(repr=False)
    # The key for public responses. So a lost secret costs a disk only its personal responses.
    public_secret: bytes = field(default=b"", repr=False)
    bytes_max: int = 64 * MIB  # a 256 MB machine has this much to spare
    variants_max: int = 10  # more variants occur if the application varies on User-Agent
    owner_share: float = 1 / 8  # of bytes_max, for each owner except everyone
    max_stale_s: float = 24 * 3600.0  # after a day, a page may be too different
    policy: StorePolicy = StorePolicy.ALL

    def __post_init__(self) -> None:
        if self.bytes_max < 0 or self.variants_max < 1 or self.max_stale_s < 0:
            raise ValueError("bytes_max and max_stale_s are at least 0, variants_max at least 1")
        if not 0 < self.owner_share <= 1:
            raise ValueError("owner_share is above 0 and at most 1")


@dataclass(slots=True)
class StoreStats:
    """The figures of the store. Counters only ever grow; the first six are levels."""

    entries: int = 0
    keys: int = 0
    bodies: int = 0  # distinct ones
    owners: int = 0  # without everyone
    bytes_used: int = 0
    bytes_max: int = 0
    found_own: int = 0
    found_public: int = 0
    not_found: int = 0
    stored: int = 0
    unchanged: int = 0  # stored again with the same head and body
    refreshed: int = 0  # by a 304
    refused: int = 0  # too large for the budget or the share, or too late
    superseded: int = 0
    evicted_budget: int = 0
    evicted_share: int = 0  # least recently used of an owner over its share
    evicted_variants: int = 0
    expired: int = 0  # too old to be served when found
    dropped_session: int = 0
    purged: int = 0
    withdrawn: int = 0  # the application refused the page
    restored: int = 0  # of these: the deployment was broken
