"""Answers that need no application: stored responses, refusals and errors.

Each is written at once, but for a stored response that has to be decoded for its client first: the
client waits for that (`AwaitedForm`), and whatever else goes on goes on without it.
"""

import random

from retter.base.reason import Reason
from retter.breaker import Kind
from retter.proxy.interfaces import Client
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services
from retter.store.conditional import VIEW_BYTES_MIN
from retter.store.owner import OwnerClass
from retter.store.record import Form, not_to_be_kept
from retter.store.store import StoredResponse

_GET = Kind.GET


def clock(services: Services) -> float:
    """Return the time for the access log; 0 without one."""
    return services.access_log.clock() if services.access_log is not None else 0.0


def took_so_far_s(services: Services, began_at: float) -> float:
    """Return how long a request has taken so far, for the access log; 0 without one."""
    return services.access_log.clock() - began_at if services.access_log is not None else 0.0


def last_resort(services: Services, parsed: ParsedRequest, now: float) -> StoredResponse | None:
    """Return a stored response where otherwise an error would be sent: superseded ones too."""
    if not parsed.identity.stands_in:
        return None
    stored = services.store.lookup(parsed.identity, parsed.head, now, superseded=True)
    if stored is None or (
        stored.content_coding and not services.decoding.readable(stored, parsed.head)
    ):
        return None
    return stored


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
    stored: StoredResponse,
    reason: Reason,
    now: float,
    took_s: float = 0.0,
) -> None:
    """Write a stored response, as the client can read it, `took_s` after its request came."""
    answers = services.answers
    persistence = client.begin_answer(parsed.head)
    status = stored.status
    shown: StoredResponse | Form = stored
    if stored.forms is not None:
        shown = services.compression.form(parsed, stored)
    if stored.public and parsed.identity.owner:
        # Somebody's own page is to be shown again when it can be: no browser keeps this one.
        shown = shown._replace(head=not_to_be_kept(shown.head))
    if parsed.head.conditional or status == 204:
        if shown is not stored:
            stored = stored._replace(head=shown.head, body=shown.body)
        head, body = answers.stored_conditionally(parsed.head, stored, reason, persistence, now)
        status = int(head[9:12])
    else:
        head, body = answers.stored(stored, shown, reason, persistence, now)
    if parsed.head.method == b"HEAD":
        body = b""  # RFC 9110 section 9.3.2: the head that a GET would get
    if isinstance(body, bytes) and len(body) <= VIEW_BYTES_MIN:
        client.write_message(head, body)
    else:
        client.write_stored(head, body)
    services.counters.stored[reason.row + status // 100] += 1
    if services.access_log is not None:
        who = client.forwarding.client_of(parsed.head)
        services.access_log.add(
            who, parsed.head, parsed.identity, status, "cache", reason, took_s, len(body)
        )


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
    """Write a 503 whose Retry-After is spread, so that the clients do not come back together."""
    note_unanswered(services, parsed)
    seconds = max(1, round(retry_after_s * random.uniform(1.0, 2.0)))
    client.write(
        services.answers.error(
            parsed.head, 503, reason, client.begin_answer(parsed.head),
            date=services.http_date(), retry_after_s=seconds,
        )
    )  # fmt: skip
    services.counters.refused[reason] += 1
    services.counters.count_own(parsed.kind is _GET, reason, 503)
    if services.access_log is not None:
        who = client.forwarding.client_of(parsed.head)
        services.access_log.add(who, parsed.head, parsed.identity, 503, "retter", reason, took_s)


def answer_error(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    status: int,
    reason: Reason,
    took_s: float,
) -> None:
    """Write an error of our own in place of the application's answer."""
    note_unanswered(services, parsed)
    client.write(
        services.answers.error(
            parsed.head, status, reason, client.begin_answer(parsed.head), date=services.http_date()
        )
    )
    services.counters.count_own(parsed.kind is _GET, reason, status)
    if services.access_log is not None:
        who = client.forwarding.client_of(parsed.head)
        services.access_log.add(who, parsed.head, parsed.identity, status, "retter", reason, took_s)


class AwaitedForm:
    """A client that waits until a stored response is decoded for it, and for nothing else.

    Its exchange, if there was one, goes its own way without it.

    Args:
        began_at: When its request came, for the access log.
        status: Of the error that it gets if the response cannot be decoded.
        retry_after_s: For a 503; 0 for other errors.
    """

    __slots__ = (
        "_began_at",
        "_client",
        "_parsed",
        "_reason",
        "_retry_after_s",
        "_services",
        "_status",
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
            if services.access_log is not None:
                who = client.forwarding.client_of(parsed.head)
                services.access_log.add(
                    who, parsed.head, parsed.identity, 0, "cache", Reason.CLIENT_GONE, took_s
                )
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
    if services.access_log is not None:
        parsed = body.parsed
        who = client.forwarding.client_of(parsed.head)
        took_s = took_so_far_s(services, body.began_at)
        services.access_log.add(who, parsed.head, parsed.identity, status, "retter", reason, took_s)
