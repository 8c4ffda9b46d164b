"""One stored response: the kept data, the meaning of its head, and its update by a 304.

This module has only pure functions over heads. store.py keeps the responses; conditional.py decides
which part of one a request gets. `now` is monotonic seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf
from typing import Any, Final, NamedTuple, cast

from retter.base.limits import CODINGS_MAX, VARY_NAMES_MAX
from retter.http.cache_control import (
    coding_of,
    delta_seconds,
    parse_cache_control,
    shared_age_max_s,
)
from retter.http.head_edit import updated, without_fields
from retter.http.message import Fields, RequestHead, ResponseHead, Soft

# The cost of one stored response in addition to its bytes, measured with tracemalloc over 22,000 to
# 44,000 entries on CPython 3.11 (64 bit): up to 710 for everyone's, 725 for an owner's. It consists
# of the record with its numbers, the tuple of variants, the key's entries in three or four
# dictionaries, the body's entries in two tables, and the headers of the bytes objects.
ENTRY_OVERHEAD_BYTES: Final = 740


# A form's record and its entry in the response's own dictionary (counted as above).
FORM_OVERHEAD_BYTES: Final = 320


# A time that is before all others.
NEVER: Final = -inf


# The name for "no coding". The decoded form of an encoded response is kept under it.
IDENTITY: Final = b"identity"


class Form(NamedTuple):
    """A stored response in another content coding, ready to be sent."""

    head: bytes  # like StoredResponse.head
    body: bytes


# By coding: usually none, else one or two. The garbage collector can skip tuples.
Forms = tuple[tuple[bytes, Form], ...]


class StoredResponse(NamedTuple):
    """One stored response. Immutable: a refresh makes another one."""

    status: int
    head: bytes  # ResponseHead.stored: no Content-Length, Set-Cookie, Age
    body: bytes  # as the application sent it, in `content_coding`
    content_coding: bytes  # lower case; b"" is identity
    etag: bytes  # b"" is none
    last_modified: bytes  # b"" is none
    stored_at: float  # monotonic seconds
    age_s: float  # at stored_at: received Age + response delay (RFC 9111 4.2.3)
    superseded: bool  # an unsafe method has changed the resource later
    no_store: bool  # it has no-store: memory only, never a disk or a shared store
    age_max_s: float  # not served when older; WITHDRAWN: never
    variant_key: bytes  # variant key of the request that it answered
    vary_names: tuple[bytes, ...]
    vary: bytes  # keyed hash of that request's values of these fields
    received_age_s: int
    entry_bytes: int  # its cost in the budget, without its bodies
    forms: Forms | None = None  # made so far; None: it is never compressed
    incomplete: bool = False  # a cookie of it is not kept: only used during failures
    public: bool = False  # everyone's
    soft: Soft = (b"", b"", b"")  # language, device and country (variants.py)
    generation: int = 0  # of a rolling session (lineage.py)
    stored_by: int = 0  # the number of the client that added it to others; 0: not known
    # The last client to which the application gave this good response (withdrawals.py), and the
    # last time when it gave it to another client.
    given_to: int = 0
    others_at: float = NEVER  # monotonic seconds
    asked: int = 0  # Identity.asked of that request

    def age(self, now: float) -> float:
        """Return the current age in seconds (RFC 9111 section 4.2.3)."""
        return self.age_s + now - self.stored_at

    def form(self, coding: bytes) -> Form | None:
        """Return the form in a coding, if it has been made."""
        for made_in, form in self.forms or ():
            if made_in == coding:
                return form
        return None


# A value of age_max_s: the application has withdrawn the response (withdrawals.py). A look-up finds
# it too old, without an additional check.
WITHDRAWN: Final = -1.0


# A StoredResponse is kept as a plain tuple of its fields. The garbage collector stops scanning
# plain tuples of bytes and numbers, but never named tuples: so a full collection with 100,000
# stored responses takes 1 ms instead of 30.
Record = tuple[Any, ...]
_place: Final = StoredResponse._fields.index
STATUS: Final = _place("status")  # indices of the fields, for speed
HEAD: Final = _place("head")
BODY: Final = _place("body")
CODING: Final = _place("content_coding")
ETAG: Final = _place("etag")
LAST_MODIFIED: Final = _place("last_modified")
STORED_AT: Final = _place("stored_at")
AGE: Final = _place("age_s")
SUPERSEDED: Final = _place("superseded")
INCOMPLETE: Final = _place("incomplete")
PUBLIC: Final = _place("public")
SOFT: Final = _place("soft")
GENERATION: Final = _place("generation")
STORED_BY: Final = _place("stored_by")
GIVEN_TO: Final = _place("given_to")
OTHERS_AT: Final = _place("others_at")
ASKED: Final = _place("asked")
NO_STORE: Final = _place("no_store")
AGE_MAX: Final = _place("age_max_s")
VARIANT_KEY: Final = _place("variant_key")
VARY_NAMES: Final = _place("vary_names")
VARY: Final = _place("vary")
RECEIVED_AGE: Final = _place("received_age_s")
ENTRY_BYTES: Final = _place("entry_bytes")
FORMS: Final = _place("forms")
as_stored: Final = cast(
    "Callable[[Record], StoredResponse]",
    partial(tuple.__new__, StoredResponse),  # pyright: ignore[reportUnknownMemberType]
)


@dataclass(slots=True, frozen=True)
class Facts:
    """The facts of a response head that the store needs."""

    content_coding: bytes
    etag: bytes
    last_modified: bytes
    no_store: bool
    age_max_s: float
    vary_names: tuple[bytes, ...]
    received_age_s: int
    any_origin: bool  # it allows pages of every origin to read it


_FACT_FIELDS: Final = frozenset(
    (
        b"content-encoding",
        b"etag",
        b"last-modified",
        b"cache-control",
        b"vary",
        b"expires",
        b"date",
        b"age",
        b"access-control-allow-origin",
    )
)
# Accept-Encoding separates no variants: one representation is kept. Cookies belong to the owner.
# But a shared cache must not ignore Cookie in a Vary (RFC 9111 section 4.1).
_NOT_VARIED: Final = frozenset((b"accept-encoding", b"cookie"))
_NOT_VARIED_SHARED: Final = frozenset((b"accept-encoding",))
# RETTER writes these fields for each client. A response that varies by one of them belongs to one
# address, as if its Vary had been `*`.
_OF_ONE_CLIENT: Final = frozenset((b"*", b"x-forwarded-for", b"x-real-ip"))
# RFC 9111 section 3.2: a 304 never changes these. Some of them describe the stored body.
_KEPT_ON_REFRESH: Final = frozenset(
    (
        b"content-length",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"content-md5",
        b"content-digest",
        b"repr-digest",
        b"digest",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"trailer",
        b"upgrade",
        b"set-cookie",
        b"age",
        b"vary",
        b"via",
    )
)


def facts_of(fields: Fields, max_stale_s: float, *, shared: bool) -> Facts | None:
    """Read the fields of a response; None if it must not be stored (`Vary: *`, many codings).

    Nor must one that varies by the client's address.

    With `shared`, its Cache-Control limits the age at which it is served (RFC 9111 section 4.2.4).
    """
    values: dict[bytes, bytes] = {}
    for name, value in [line for line in fields if line[0] in _FACT_FIELDS]:
        values[name] = values[name] + b", " + value if name in values else value
    vary_names = vary_names_of(values.get(b"vary", b""), shared)
    if vary_names is None or values.get(b"content-encoding", b"").count(b",") >= CODINGS_MAX:
        return None
    control = parse_cache_control(values.get(b"cache-control", b""))
    age_max_s = max_stale_s
    if shared:
        age_max_s = shared_age_max_s(
            control, values.get(b"expires"), values.get(b"date"), max_stale_s
        )
    return Facts(
        coding_of(values.get(b"content-encoding", b"")),
        values.get(b"etag", b""),
        values.get(b"last-modified", b""),
        control.no_store,
        age_max_s,
        vary_names,
        _age_s(values.get(b"age")),
        values.get(b"access-control-allow-origin") == b"*",
    )


def entry_bytes(
    key: bytes, head: bytes, etag: bytes, last_modified: bytes, variant_key: bytes
) -> int:
    """Return the cost of an entry in the budget, in octets, without its body."""
    texts = len(key) + len(head) + len(etag) + len(last_modified) + len(variant_key)
    return ENTRY_OVERHEAD_BYTES + texts


def bytes_referred(record: Record) -> int:
    """Return the octets of the bodies that an entry refers to."""
    body = record[BODY]
    size = len(body)
    if record[FORMS]:
        # If compression saves nothing, the form is the body itself.
        size += sum(len(form.body) for _, form in record[FORMS] if form.body is not body)
    return size


def age_received_s(response: ResponseHead) -> int:
    """Return the Age of a received response in seconds; 0 without a valid one."""
    return _age_s(response.first(b"age"))


def _age_s(value: bytes | None) -> int:
    # A malformed Age is ignored. Of a list, the first member counts (RFC 9111 section 5.1).
    if value is None:
        return 0
    return delta_seconds(value.partition(b",")[0].strip(b" \t")) or 0


def vary_names_of(value: bytes, shared: bool) -> tuple[bytes, ...] | None:
    """Return the fields that Vary names and that separate variants, or None for `*`.

    It is also None if there are too many names, or one of them tells the client's address.
    """
    return None if value.count(b",") >= VARY_NAMES_MAX else _vary_names_of(value, shared)


@lru_cache(maxsize=256)  # a site has few distinct ones
def _vary_names_of(value: bytes, shared: bool) -> tuple[bytes, ...] | None:
    names = {name.strip(b" \t").lower() for name in value.split(b",")}
    if not _OF_ONE_CLIENT.isdisjoint(names):
        return None
    return tuple(sorted(names - (_NOT_VARIED_SHARED if shared else _NOT_VARIED) - {b""}))


def validates(request: RequestHead, not_modified: ResponseHead, stored: StoredResponse) -> bool:
    """Return whether a 304 validates this stored response (RFC 9111 section 4.3.4)."""
    if etag := not_modified.combined(b"etag"):
        return etag == stored.etag
    if last_modified := not_modified.combined(b"last-modified"):
        return last_modified == stored.last_modified
    if asked := request.combined(b"if-none-match"):
        return asked == stored.etag  # only one tag, so the 304 means this one
    asked = request.combined(b"if-modified-since")
    return bool(asked) and asked == stored.last_modified


def updated_head(head: bytes, not_modified: ResponseHead) -> bytes:
    """Return the stored head, in which the fields of the 304 replace its own."""
    return updated(head, not_modified.stored, _KEPT_ON_REFRESH)


_FRESHNESS: Final = (b"cache-control:", b"expires:", b"pragma:")


@lru_cache(maxsize=256)  # pages that visitors with cookies request while the application fails
def not_to_be_kept(head: bytes) -> bytes:
    """Return a stored head that makes the client revalidate it (RFC 9111 section 5.2.2.4)."""
    return without_fields(head, _FRESHNESS) + b"Cache-Control: no-cache\r\n"
