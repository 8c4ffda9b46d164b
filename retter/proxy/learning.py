"""Learns from a response while it is passed on to its client.

The head shows sessions, withdrawn pages, and whether the response may be stored (`learn`). The
whole body shows whether it is good (`judge`, with the rules of goodness.py).
"""

from typing import Final

from retter.base.errors import Outcome, outcome_of
from retter.breaker import Permit, State
from retter.http.cache_control import coding_of
from retter.http.message import ResponseHead
from retter.proxy.goodness import (
    DATA_ENDS,
    ENDS,
    NEW_BYTES_MAX,
    PAGE_ENDS,
    PLACE_BYTES_MAX,
    Verdict,
    has_shrunk,
)
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services
from retter.proxy.time_limits import SAFE_METHODS
from retter.store.owner import OwnerRules
from retter.store.personal import (
    gives_token,
    is_personal,
    shows_its_client,
    wrote_to_be_shown,
)
from retter.store.policy import invalidated_urls, storable
from retter.store.record import BODY, CODING, WITHDRAWN, Record, as_stored
from retter.store.target import changes_person

_OK: Final = Outcome.OK
_CLOSED: Final = State.CLOSED


def learn(
    services: Services,
    parsed: ParsedRequest,
    permit: Permit,
    head: ResponseHead,
    outcome: Outcome,
    requested_at: float,
    now: float,
) -> bool:
    """Learn from the head alone; return whether the response may be stored."""
    identity, request, rules = parsed.identity, parsed.head, services.owner_rules
    if head.set_cookies or head.clears_cookies:
        services.keeper.learn_cookies(identity, request, head, now)
    if outcome is _OK:
        if head.status < 400:
            _answered_well(services, permit)
        status = 401 if _leads_to_login(head) else head.status
        if status >= 400 and identity.lookup and request.method == b"GET":  # not each knows HEAD
            state = services.breaker.circuit.state
            services.withdrawals.refused(identity, status, state, permit.client, now)
    if request.method not in SAFE_METHODS:
        learn_of_change(services, parsed, head, now)
        return False
    if not identity.stands_in or (300 <= head.status < 400 and head.names_place):
        services.keeper.learn_target(identity, request, now)  # who is logged in is led on
    if outcome is _OK and storable(identity, request, head, services.store_policy, rules):
        return True
    if head.status == 304 and identity.lookup and not _is_personal(parsed, head, rules):
        services.store.refresh(identity, request, head, requested_at, now, permit.client)
    return False


def _leads_to_login(head: ResponseHead) -> bool:
    """Return whether a redirect asks who it is, as applications with forms do instead of a 401.

    To store the redirect would replace one variant of the page alone.
    """
    if not 300 <= head.status < 400 or not head.names_place:
        return False
    return changes_person((head.first(b"location") or b"")[:PLACE_BYTES_MAX])


def _is_personal(parsed: ParsedRequest, head: ResponseHead, rules: OwnerRules) -> bool:
    """Return whether a 304 shows its client or a cookie: a stored page would get its fields."""
    request = parsed.head
    if parsed.identity.session:
        return False
    if wrote_to_be_shown(request) and shows_its_client(request, b"", head.stored):
        return True
    if gives_token(request, head):
        return True
    return bool(head.set_cookies) and is_personal(request, head, b"", rules)


def is_plain_change(parsed: ParsedRequest, body: RequestBody | None) -> bool:
    """Return whether a request may have changed something and is an ordinary one otherwise.

    No answer to such a request is stored.

    Args:
        body: The request's; it must have been sent whole.
    """
    return (
        parsed.head.method not in SAFE_METHODS
        and (body is None or body.complete)
        and not (parsed.stream or parsed.asks_events)
    )


def learn_of_change(
    services: Services, parsed: ParsedRequest, head: ResponseHead, now: float
) -> None:
    """Mark stored responses as superseded that the request may have changed (RFC 9111 4.4).

    A login or logout drops all that is stored for its visitor.
    """
    if parsed.identity.owner:
        services.keeper.learn_target(parsed.identity, parsed.head, now)
    if urls := invalidated_urls(parsed.head, head, services.owner_rules):
        services.store.invalidation.supersede(parsed.identity, urls, now)


def learn_of_failure(services: Services, parsed: ParsedRequest, permit: Permit, now: float) -> None:
    """Note that the application failed a request, or is late."""
    good_at = services.breaker.circuit.failures.clients.good_at(permit.client)
    services.goodness.failed(now, parsed.identity.url, good_at)


def learn_of_stream(
    services: Services, parsed: ParsedRequest, head: ResponseHead, now: float
) -> None:
    """Note whether the answer to a request for an event stream is one."""
    route, stream = parsed.identity.route, head.event_stream
    outcome = outcome_of(head.status, services.failure_statuses)
    services.awaited_streams.answered(route, head.status, outcome, now, stream=stream)


def _answered_well(services: Services, permit: Permit) -> None:
    """Record that the application has not withdrawn this page."""
    withdrawals = services.withdrawals
    withdrawals.confirmed += permit.has_stored
    if withdrawals.clients:
        withdrawals.answered_well(permit.client)


def is_doubtful(
    services: Services,
    parsed: ParsedRequest,
    entry: Record | None,
    head: ResponseHead,
    body: bytes,
    now: float,
) -> bool:
    """Return whether a plain response must be judged by its body.

    Args:
        entry: The earlier stored response for the same request.
    """
    if entry is not None:
        stored_body: bytes = entry[BODY]
        if not entry[CODING]:  # nearly always: without a call, as far as possible
            if 2 * len(body) < len(stored_body):
                return has_shrunk(body, stored_body)
            return (
                stored_body.endswith(ENDS)
                and not body.endswith(PAGE_ENDS)
                and (stored_body.endswith(PAGE_ENDS) or not body.endswith(DATA_ENDS))
            )
        coding = coding_of(head.combined(b"content-encoding"))
        return has_shrunk(body, stored_body, coding, entry[CODING])
    # No response is stored that could be sent instead.
    if len(body) < NEW_BYTES_MAX and services.goodness.in_trouble(now):
        return True
    identity, slots = parsed.identity, services.store.shelves.slots
    if identity.key not in slots and identity.public_key not in slots:
        return False  # `has_any`, without a call
    # What is stored is mostly for other clients: a page for programs where a browser asks. `judge`
    # would find the response good. If programs without cookies read the same pages, two thirds of
    # the responses to visitors with sessions are of this kind. A delivery for each would cost
    # 55,000 of 275,000 instructions of the processor.
    if services.store.has_for(identity, parsed.head, now):
        return True
    return len(body) < NEW_BYTES_MAX and services.breaker.unsettled.state is not _CLOSED


def judge(
    services: Services,
    parsed: ParsedRequest,
    entry: Record | None,
    head: ResponseHead,
    body: bytes,
    now: float,
) -> Verdict:
    """Judge a response when its last piece has come, before that piece is passed on."""
    if not parsed.identity.lookup or parsed.head.method == b"HEAD":
        return Verdict.GOOD  # the answer to a HEAD has no body to be judged by
    stored = (
        services.store.peek(parsed.identity, parsed.head, now)[0]
        if entry is None
        else as_stored(entry)
    )
    if stored is not None and stored.age_max_s == WITHDRAWN:
        stored = None
    return services.goodness.judge(
        parsed.identity.key,
        head,
        body,
        stored,
        trouble=services.breaker.circuit.state is not State.CLOSED
        or services.goodness.in_trouble(now),
    )
