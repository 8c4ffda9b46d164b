"""Answers that need no application: stored responses, refusals and errors.

Each is written at once, but for a stored response that has to be decoded for its client first: the
client waits for that (`AwaitedForm`), and whatever else goes on goes on without it.
"""

import random
from enum import Enum, auto

from retter.base.errors import DownstreamError
from retter.base.reason import Reason
from retter.breaker import Kind, Permit
from retter.http.message import RequestHead
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

_GET = Kind.GET


# -- the access log -------------------------------------------------------------------------------


def clock(services: Services) -> float:
    """Return the time for the access log; 0 without one."""
    return services.access_log.clock() if services.access_log is not None else 0.0


def took_so_far_s(services: Services, began_at: float) -> float:
    """Return how long a request has taken so far, for the access log; 0 without one."""
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
        status: As the client got it; 0 if it got none.
        source: "backend", "cache" or "retter".
        took_s: Seconds from the request's head to the end of the answer.
        sent: Octets of the answer's body.
        first_byte_s: Seconds until the head of the answer, of one that came in pieces.
    """
    if services.access_log is not None:
        forwarding = client.forwarding
        number = services.peers.client_of(forwarding, parsed)
        lane = services.turns.lane_of(forwarding, parsed, number, services.loop.time())
        who = forwarding.client_of(parsed.head)
        services.access_log.add(
            who,
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


def note_client_gone(
    services: Services, client: Client | None, parsed: ParsedRequest, began_at: float
) -> None:
    """Note that a client has left before it got anything."""
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
    """Note that the rest of a request cannot be read: its client is told so, and not answered."""
    services.counters.count_own(parsed.kind is _GET, error.reason, error.status)
    if client is not None:
        took_s = took_so_far_s(services, began_at)
        log_request(services, client, parsed, error.status, "retter", error.reason, took_s)


# -- from the store -------------------------------------------------------------------------------


def shown_to(
    services: Services, parsed: ParsedRequest, stored: StoredResponse
) -> StoredResponse | None:
    """Return a stored response as this client can read it; None: that has to be made first."""
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
    """Write a stored response, as the client can read it, `took_s` after its request came.

    It is not given names first: to make a StoredResponse of an entry takes 0.3 of 2 us.
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
        # Somebody's own page is to be shown again when it can be: no browser keeps this one.
        head = not_to_be_kept(head)
    sent = len(body)
    if (
        sent <= VIEW_BYTES_MIN
        and not request.conditional
        and request.method != b"HEAD"
        and status != 204
    ):
        age_s = now - entry[STORED_AT] + entry[AGE]  # RFC 9111 section 4.2.3
        client.out.write(services.answers.stored_whole(head, body, age_s, reason, persistence))
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
    """Write what a request with a condition, with a range, or for a head alone gets, or a large
    response; return the status and the octets of the body.
    """
    body: bytes | memoryview
    if request.conditional or shown.status == 204:
        head, body = services.answers.stored_conditionally(request, shown, reason, persistence, now)
    else:
        head, body = services.answers.stored(shown, reason, persistence, now)
    if request.method == b"HEAD":
        body = b""  # RFC 9110 section 9.3.2: the head that a GET would get
    if isinstance(body, bytes) and len(body) <= VIEW_BYTES_MIN:
        client.out.write_message(head, body)
    else:
        client.out.write_stored(head, body)
    return int(head[9:12]), len(body)


class StandIn(Enum):
    """The result of looking for a stored response in place of the application's."""

    NONE = auto()  # there is none for this client
    WRITTEN = auto()
    AWAITED = auto()  # the client waits until it is decoded


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
    """Answer from the store where the application fails, if there is something stored.

    Args:
        began_at: When the request came, for the access log.
        status: Of the error that the client gets, with `retry_after_s`, if what is stored cannot
            be decoded.
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
    """Write a stored response in place of the application's answer."""
    services.failed_page.note(parsed, client.forwarding.proto)
    took_s = took_so_far_s(services, began_at)
    answer_from_store(services, client, parsed, shown, reason, now, took_s)


# -- of our own -----------------------------------------------------------------------------------


def note_unanswered(services: Services, parsed: ParsedRequest) -> None:
    """Note who gets an error, for hints: a visitor whom cookies alone keep from stored pages."""
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
    """Write a 503 whose Retry-After is spread, so that the clients do not come back together.

    A visitor gets a page that comes again by itself (turns.py).
    """
    note_unanswered(services, parsed)
    seconds = max(1, round(retry_after_s * random.uniform(1.0, 2.0)))
    forwarding = client.forwarding
    number = services.peers.client_of(forwarding, parsed)
    pause_s = retry_after_s if reason is Reason.PAUSED else 0.0
    now = services.loop.time()
    wait = services.turns.wait_of(forwarding, parsed, number, now, pause_s)
    client.out.write(
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
    """Write an error of our own in place of the application's answer.

    A visitor gets a page that comes again by itself while the application is being started.
    """
    note_unanswered(services, parsed)
    wait = wait_for_restart(parsed.head) if reason is Reason.CONNECT_REFUSED else None
    if wait is not None:
        status = 503
    client.out.write(
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
    """Answer where the application fails: from the store, else with an error of our own.

    Args:
        body: Of the request.
        retry_after_s: For a 503; 0 for other errors.

    Returns:
        NONE if it was the error.
    """
    came = answer_instead(services, client, parsed, reason, now, began_at, status, retry_after_s)
    if came is StandIn.NONE:
        if body is not None and not body.complete:
            client.close_after_answer()  # the rest of it is not read
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
    """Answer from the store since the patience is over.

    Args:
        permit: Whoever holds it gets what is stored if that has to be decoded first (AWAITED):
            `form_made`. Until then the application may be faster.
    """
    stored = stale_for_error(services, parsed, now)
    if stored is None:
        return StandIn.NONE
    shown = shown_to(services, parsed, stored)
    if shown is None:

        def made(shown: StoredResponse | None) -> None:
            if isinstance(permit.holder, Work):  # perhaps another by now, or nobody
                permit.holder.form_made(shown, services.loop.time())

        services.decoding.make(parsed.identity, stored, made)
        return StandIn.AWAITED
    answer_with(services, client, parsed, shown, Reason.PATIENCE, now, began_at)
    return StandIn.WRITTEN


class AwaitedForm:
    """A client that waits until a stored response is decoded for it, and for nothing else.

    Its exchange, if there was one, goes its own way without it.

    Args:
        began_at: When its request came, for the access log.
        status: Of the error that it gets if the response cannot be decoded.
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
        """Have the response decoded; False if there is too much to do for that."""
        if not self._services.decoding.make(self._parsed.identity, stored, self._made):
            return False
        self._client.await_form()
        return True

    def _made(self, shown: StoredResponse | None) -> None:
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
    """Forget a request whose body has not come: nothing of it went to the application."""
    body.release()
    took_s = took_so_far_s(services, body.began_at)
    log_request(services, client, body.parsed, status, "retter", reason, took_s)
