"""The refresh of a stored response by a 304 (RFC 9111 sections 3.2 and 4.3.4)."""

from retter.http.head_edit import fields_of
from retter.http.message import ResponseHead
from retter.store.policy import Identity
from retter.store.record import (
    StoredResponse,
    age_received_s,
    entry_bytes,
    facts_of,
    updated_head,
    vary_names_of,
)


def refreshed(
    old: StoredResponse,
    identity: Identity,
    not_modified: ResponseHead,
    requested_at: float,
    now: float,
    *,
    superseded: bool,
    client: int,
    max_stale_s: float,
    shared: bool,
) -> StoredResponse | None:
    """Return the stored response, updated with the fields of the 304 that has validated it.

    Args:
        superseded: An unsafe method may have changed the resource since the request was sent.
        client: The client whose request the 304 answers (StoredResponse.given_to).
        shared: Apply the rules for shared caches.

    Returns:
        None if after this 304 the response must not be kept any more, or not under this key.
    """
    head = updated_head(old.head, not_modified)
    facts = facts_of(fields_of(head), max_stale_s, shared=shared)
    vary = not_modified.combined(b"vary")
    if facts is None or (vary and not _varies_as(old, vary, shared)) or (shared and facts.no_store):
        return None
    received_age_s = age_received_s(not_modified)
    return old._replace(
        head=head,
        etag=facts.etag,
        last_modified=facts.last_modified,
        stored_at=now,
        age_s=received_age_s + now - requested_at,
        superseded=superseded,
        no_store=facts.no_store,
        age_max_s=facts.age_max_s,
        received_age_s=received_age_s,
        entry_bytes=entry_bytes(
            identity.key, head, facts.etag, facts.last_modified, old.variant_key
        ),
        forms=None if old.forms is None else (),  # the heads of its forms are outdated
        given_to=client,
        others_at=old.others_at if old.given_to == client else old.stored_at,
        asked=identity.asked,
    )


def _varies_as(old: StoredResponse, vary: bytes, shared: bool) -> bool:
    names = vary_names_of(vary, shared)
    if names is None:
        return False
    # `put` may have added Origin to the names.
    return set(names) == set(old.vary_names) or {*names, b"origin"} == set(old.vary_names)
