"""Responses without the application: stored responses, refusals and errors.

Each is written at once, except a stored response that must first be decoded for its client. The
client waits for that (`AwaitedForm`). Its exchange, if any, continues without it.
"""

import random
from enum import Enum, auto
from typing import Final

from retter.base.errors import DownstreamError
from retter.base.reason import Reason
from retter.breaker import Kind, Permit
from retter.http.message import RequestHead
from retter.net.supervision import report
from retter.proxy.far_lookup import read_far
from retter.proxy.interfaces import Client, Work
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.responses import Persistence
from retter.proxy.services import Services
from retter.proxy.stored_choice import stale_for_error
from retter.proxy.turns import wait_for_restart
from retter.store.conditional import VIEW_BYTES_MIN
from retter.store.owner import OwnerClass
from retter.store.record import (
    AGE,
    BODY,
    FORMS,
    HEAD,
    PUBLIC,
    STATUS,
    STORED_AT,
    Record,
    as_stored,
    not_to_be_kept,
)
from retter.store.store import StoredResponse

_GET: Final = Kind.GET


# -- the access log -------------------------------------------------------------------------------


def clock(services: Services) -> float:
    """Return the time by the access log's clock; 0 without an access log."""
    return services.access_log.clock() if services.access_log is not None else 0.0


def took_so_far_s(services: Services, began_at: float) -> float:
    """Return the duration of a request until now, for the access log; 0 without an access log."""
    return services.access_log.clock() - began_at if services.access_log is not None else 0.0


def log_request(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    status: int,
    source: str,
    reason: Reason,
    took_s: float,
    sent: int = 0,
    first_byte_s: float | None = None,
) -> None:
    """Write a line into the access log, if there is one.

    Args:
        status: The status code that the client got; 0 if it got none.
        source: "backend", "cache" or "retter".
        took_s: Seconds from the request's head to the end of the response.
        sent: Octets of the response's body.
        first_byte_s: Seconds until the response's head, if the response came in pieces.
    """
    if services.access_log is None:
        return
    try:
        forwarding = client.forwarding
        number = services.peers.client_of(forwarding, parsed)
        lane = services.turns.lane_of(forwarding, parsed, number, services.loop.time())
        services.access_log.add(
            forwarding.client_of(parsed.head),
            parsed.head,
            parsed.identity,
            status,
            source,
            reason,
            took_s,
            sent,
            first_byte_s,
            lane,
        )
    except Exception as error:  # noqa: BLE001 - reported to the loop
        # The answer has been written: no other one may follow it.
        report(services.loop, "a line of the access log could not be written", error)


def note_client_gone(
    services: Services, client: Client | None, parsed: ParsedRequest, began_at: float
) -> None:
    """Note that a client has left before it got a part of the response."""
    services.counters.clients_gone += 1
    if not (parsed.stream or parsed.asks_events):
        services.counters.count_given_up(parsed.kind is _GET)
    if client is not None:
        took_s = took_so_far_s(services, began_at)
        log_request(services, client, parsed, 0, "backend", Reason.CLIENT_GONE, took_s)


def note_client_failed(
    services: Services,
    client: Client | None,
    parsed: ParsedRequest,
    error: DownstreamError,
    began_at: float,
) -> None:
    """Note that the rest of a request cannot be read; its connection reports the error."""
    services.counters.count_own(parsed.kind is _GET, error.reason, error.status)
    if client is not None:
        took_s = took_so_far_s(services, began_at)
        log_request(services, client, parsed, error.status, "retter", error.reason, took_s)


# -- from the store -------------------------------------------------------------------------------


def shown_to(
    services: Services, parsed: ParsedRequest, stored: StoredResponse
) -> StoredResponse | None:
    """Return a stored response in a coding that this client accepts; None: decode it first."""
    if not stored.content_coding:
        return stored
    return services.decoding.shown(parsed.identity, stored, parsed.head)


def answer_from_store(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    entry: Record,
    reason: Reason,
    now: float,
    took_s: float = 0.0,
) -> None:
    """Write a stored response, in a coding that the client accepts.

    The entry is read by index: making a StoredResponse of it would take 0.3 of 2 us.

    Args:
        took_s: Seconds since the request arrived, for the access log.
    """
    request = parsed.head
    persistence = client.begin_answer(request)
    status: int = entry[STATUS]
    head: bytes = entry[HEAD]
    body: bytes = entry[BODY]
    if entry[FORMS] is not None:
        form = services.compression.form(parsed, entry)
        if form is not None:
            head, body = form
    if entry[PUBLIC] and parsed.identity.owner:
        # This visitor's own page must be shown again when it is available, so no browser may cache
        # this public one.
        head = not_to_be_kept(head)
    sent = len(body)
    if (
        sent <= VIEW_BYTES_MIN
        and not request.form.conditional
        and request.method != b"HEAD"
        and status != 204
    ):
        age_s = now - entry[STORED_AT] + entry[AGE]  # RFC 9111 section 4.2.3
        client.out.write_whole(
            services.answers.stored_whole(head, body, age_s, reason, persistence)
        )
    else:
        shown = as_stored(entry)._replace(head=head, body=body)
        status, sent = _answer_selectively(
            services, client, request, shown, reason, persistence, now
        )
    services.counters.stored[reason.row + status // 100] += 1
    if services.access_log is not None:
        log_request(services, client, parsed, status, "cache", reason, took_s, sent)


def _answer_selectively(
    services: Services,
    client: Client,
    request: RequestHead,
    shown: StoredResponse,
    reason: Reason,
    persistence: Persistence,
    now: float,
) -> tuple[int, int]:
    """Write the response to a conditional request, a range request or a HEAD, or a large response.

    Returns:
        The status, and the number of octets of the body.
    """
    body: bytes | memoryview
    if request.form.conditional or shown.status == 204:
        head, body = services.answers.stored_conditionally(request, shown, reason, persistence, now)
    else:
        head, body = services.answers.stored(shown, reason, persistence, now)
    if request.method == b"HEAD":
        body = b""  # RFC 9110 section 9.3.2: the head that a GET would get
    if isinstance(body, bytes) and len(body) <= VIEW_BYTES_MIN:
        client.out.write_whole(head + body)
    else:
        client.out.write_stored(head, body)
    return int(head[9:12]), len(body)


class StandIn(Enum):
    """The result of looking for a stored response in place of the application's."""

    NONE = auto()  # there is none for this client
    WRITTEN = auto()
    AWAITED = auto()  # the client waits until it is decoded
    LATER = auto()  # too many jobs wait already: it cannot be decoded now


def answer_instead(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    reason: Reason,
    now: float,
    began_at: float,
    status: int,
    retry_after_s: float = 0.0,
) -> StandIn:
    """Answer from the store if the application fails and a response is stored.

    Args:
        began_at: When the request arrived, for the access log.
        status: Of the error that the client gets, with `retry_after_s`, if the stored response
            cannot be decoded.
    """
    stored = stale_for_error(services, parsed, now)
    if stored is None:
        return StandIn.NONE
    shown = shown_to(services, parsed, stored)
    if shown is not None:
        answer_with(services, client, parsed, shown, reason, now, began_at)
        return StandIn.WRITTEN
    waiter = AwaitedForm(services, client, parsed, reason, began_at, status, retry_after_s)
    return StandIn.AWAITED if waiter.wait_for(stored) else StandIn.NONE


def answer_with(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    shown: StoredResponse,
    reason: Reason,
    now: float,
    began_at: float,
) -> None:
    """Write a stored response in place of the application's response."""
    services.failed_page.note(parsed, client.forwarding.proto)
    took_s = took_so_far_s(services, began_at)
    answer_from_store(services, client, parsed, shown, reason, now, took_s)


# -- made by RETTER -------------------------------------------------------------------------------


def note_unanswered(services: Services, parsed: ParsedRequest) -> None:
    """Note an error for the hints, if only cookies keep the visitor from stored pages."""
    if parsed.kind is _GET and parsed.identity.owner_class is OwnerClass.COOKIES:
        services.hints.unanswered(parsed.head, services.owner_rules)


def refuse(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    reason: Reason,
    retry_after_s: float,
    took_s: float = 0.0,
) -> None:
    """Write a 503 with a randomized Retry-After, so that the clients do not retry all at once.

    A visitor gets a page that reloads itself (turns.py).
    """
    note_unanswered(services, parsed)
    seconds = max(1, round(retry_after_s * random.uniform(1.0, 2.0)))
    forwarding = client.forwarding
    number = services.peers.client_of(forwarding, parsed)
    pause_s = retry_after_s if reason is Reason.PAUSED else 0.0
    now = services.loop.time()
    waited_s = services.settings.queue_wait_s if reason is Reason.QUEUE_TIMEOUT else 0.0
    wait = services.turns.wait_of(forwarding, parsed, number, now, pause_s, waited_s)
    client.out.write_whole(
        services.answers.error(
            parsed.head,
            503,
            reason,
            client.begin_answer(parsed.head),
            date=services.http_date(),
            retry_after_s=seconds,
            wait=wait,
        )
    )
    services.counters.refused[reason] += 1
    services.counters.count_own(parsed.kind is _GET, reason, 503)
    log_request(services, client, parsed, 503, "retter", reason, took_s)


def answer_error(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    status: int,
    reason: Reason,
    took_s: float,
) -> None:
    """Write RETTER's own error in place of the application's response.

    A visitor gets a page that reloads itself while the application is being started.
    """
    note_unanswered(services, parsed)
    wait = wait_for_restart(parsed.head) if reason is Reason.CONNECT_REFUSED else None
    if wait is not None:
        status = 503
    client.out.write_whole(
        services.answers.error(
            parsed.head,
            status,
            reason,
            client.begin_answer(parsed.head),
            date=services.http_date(),
            wait=wait,
        )
    )
    services.counters.count_own(parsed.kind is _GET, reason, status)
    log_request(services, client, parsed, status, "retter", reason, took_s)


def answer_failure(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    body: RequestBody | None,
    reason: Reason,
    now: float,
    began_at: float,
    status: int,
    retry_after_s: float = 0.0,
) -> StandIn:
    """Answer if the application fails: from the store, else with RETTER's own error.

    Args:
        body: The request's body.
        retry_after_s: For a 503; 0 for other errors.

    Returns:
        NONE if the client got the error.
    """
    came = answer_instead(services, client, parsed, reason, now, began_at, status, retry_after_s)
    if came is StandIn.NONE and services.far is not None:
        waiter = AwaitedForm(services, client, parsed, reason, began_at, status, retry_after_s)
        if waiter.wait_for_far():
            return StandIn.AWAITED
    if came is StandIn.NONE:
        if not parsed.identity.stands_in:
            # Whoever asked to log out must not be shown their pages any more, even if it failed.
            services.keeper.learn_target(parsed.identity, parsed.head, now)
            if body is not None and body.changes_person:
                services.keeper.learn_body(parsed.identity, parsed.head, now)
        if body is not None and not body.complete:
            client.close_after_answer()  # the rest of the body is not read
        took_s = took_so_far_s(services, began_at)
        if retry_after_s:
            refuse(services, client, parsed, reason, retry_after_s, took_s)
        else:
            answer_error(services, client, parsed, status, reason, took_s)
    return came


def answer_impatiently(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    now: float,
    began_at: float,
    permit: Permit,
) -> StandIn:
    """Answer from the store because the breaker's patience is over.

    Args:
        permit: If the stored response must be decoded first (AWAITED), `form_made` is called on
            the holder of the permit afterwards. The application may be faster than the decoding.

    Returns:
        LATER: nothing will be called; ask again when the decoding has room.
    """
    stored = stale_for_error(services, parsed, now)
    if stored is None:
        return StandIn.NONE
    shown = shown_to(services, parsed, stored)
    if shown is None:

        def made(shown: StoredResponse | None) -> None:
            if isinstance(permit.holder, Work):  # the holder may have changed or left
                permit.holder.form_made(shown, services.loop.time())

        is_made = services.decoding.make(parsed.identity, stored, made)
        return StandIn.AWAITED if is_made else StandIn.LATER
    answer_with(services, client, parsed, shown, Reason.PATIENCE, now, began_at)
    return StandIn.WRITTEN


class AwaitedForm:
    """A client that waits only until a stored response is decoded for it.

    Its exchange, if there was one, continues without the client.

    Args:
        began_at: When the request arrived, for the access log.
        status: Of the error that the client gets if the response cannot be decoded.
        retry_after_s: For a 503; 0 for other errors.
    """

    __slots__ = (
        "_began_at", "_client", "_parsed", "_reason", "_retry_after_s", "_services", "_status",
    )  # fmt: skip

    def __init__(
        self,
        services: Services,
        client: Client,
        parsed: ParsedRequest,
        reason: Reason,
        began_at: float,
        status: int,
        retry_after_s: float = 0.0,
    ) -> None:
        self._services = services
        self._client = client
        self._parsed = parsed
        self._reason = reason
        self._began_at = began_at
        self._status = status
        self._retry_after_s = retry_after_s

    def wait_for(self, stored: StoredResponse) -> bool:
        """Have the response decoded; False if too many decoding jobs wait already."""
        if not self._services.decoding.make(self._parsed.identity, stored, self._made):
            return False
        self._client.await_form()
        return True

    def wait_for_far(self) -> bool:
        """Wait for a read from other boxes; False if that is not worth a wait."""
        if not read_far(self._services, self._parsed, self._was_read):
            return False
        self._client.await_form()
        return True

    def _was_read(self) -> None:
        try:
            self._decide()
        except Exception:
            self._client.abort()  # nobody else would end its wait
            raise

    def _decide(self) -> None:
        services, parsed = self._services, self._parsed
        stored = stale_for_error(services, parsed, services.loop.time())
        shown = None if stored is None else shown_to(services, parsed, stored)
        waits = (
            stored is not None
            and shown is None
            and services.decoding.make(parsed.identity, stored, self._made)
        )
        if not waits:
            self._answer(shown)

    def _made(self, shown: StoredResponse | None) -> None:
        try:
            self._answer(shown)
        except Exception:
            self._client.abort()
            raise

    def _answer(self, shown: StoredResponse | None) -> None:
        services, client, parsed = self._services, self._client, self._parsed
        reason, took_s = self._reason, took_so_far_s(services, self._began_at)
        now = services.loop.time()
        if client.gone:
            services.counters.clients_gone += 1
            services.counters.count_given_up(parsed.kind is _GET)
            log_request(services, client, parsed, 0, "cache", Reason.CLIENT_GONE, took_s)
            return
        if shown is not None:
            answer_from_store(services, client, parsed, shown, reason, now, took_s)
        elif self._retry_after_s:
            refuse(services, client, parsed, reason, self._retry_after_s, took_s)
        else:
            answer_error(services, client, parsed, self._status, reason, took_s)
        client.exchange_done(now)


def unanswered(
    services: Services, client: Client, body: RequestBody, status: int, reason: Reason
) -> None:
    """End a request whose body is incomplete; no part of it was sent to the application."""
    body.release()
    took_s = took_so_far_s(services, body.began_at)
    log_request(services, client, body.parsed, status, "retter", reason, took_s)
