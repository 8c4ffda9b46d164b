"""Answers that need no application: stored responses, refusals and errors.

Each is written at once, but for a stored response that has to be decoded for its client first: the
client waits for that (`AwaitedForm`), and whatever else goes on goes on without it.
"""

import random
from typing import TYPE_CHECKING

from retter.base.reason import Reason
from retter.breaker import Kind
from retter.proxy.request_body import RequestBody
from retter.store.conditional import VIEW_BYTES_MIN
from retter.store.owner import OwnerClass
from retter.store.record import Form, not_to_be_kept
from retter.store.store import StoredResponse

if TYPE_CHECKING:
    from retter.proxy.client_connection import DownstreamConnection
    from retter.proxy.proxy import ParsedRequest, Proxy

_GET = Kind.GET


def clock(proxy: "Proxy") -> float:
    """Return the time for the access log; 0 without one."""
    return proxy.access_log.clock() if proxy.access_log is not None else 0.0


def took_so_far_s(proxy: "Proxy", began_at: float) -> float:
    """Return how long a request has taken so far, for the access log; 0 without one."""
    return proxy.access_log.clock() - began_at if proxy.access_log is not None else 0.0


def last_resort(proxy: "Proxy", parsed: "ParsedRequest", now: float) -> StoredResponse | None:
    """Return a stored response where otherwise an error would be sent: superseded ones too."""
    if not parsed.identity.stands_in:
        return None
    stored = proxy.store.lookup(parsed.identity, parsed.head, now, superseded=True)
    if stored is None or (
        stored.content_coding and not proxy.decoding.readable(stored, parsed.head)
    ):
        return None
    return stored


def shown_to(
    proxy: "Proxy", parsed: "ParsedRequest", stored: StoredResponse
) -> StoredResponse | None:
    """Return a stored response as this client can read it; None: that has to be made first."""
    if not stored.content_coding:
        return stored
    return proxy.decoding.shown(parsed.identity, stored, parsed.head)


def answer_from_store(
    proxy: "Proxy",
    client: "DownstreamConnection",
    parsed: "ParsedRequest",
    stored: StoredResponse,
    reason: Reason,
    now: float,
    took_s: float = 0.0,
) -> None:
    """Write a stored response, as the client can read it, `took_s` after its request came."""
    answers = proxy.answers
    persistence = client.persistence(parsed.head)
    status = stored.status
    shown: StoredResponse | Form = stored
    if stored.forms is not None:
        shown = proxy.compression.form(parsed, stored)
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
    proxy.counters.stored[reason.row + status // 100] += 1
    if proxy.access_log is not None:
        who = client.forwarding.client_of(parsed.head)
        proxy.access_log.add(
            who, parsed.head, parsed.identity, status, "cache", reason, took_s, len(body)
        )


def note_unanswered(proxy: "Proxy", parsed: "ParsedRequest") -> None:
    """Note who gets an error, for hints: a visitor whom cookies alone keep from stored pages."""
    if parsed.kind is _GET and parsed.identity.owner_class is OwnerClass.COOKIES:
        proxy.hints.unanswered(parsed.head, proxy.owner_rules)


def refuse(
    proxy: "Proxy",
    client: "DownstreamConnection",
    parsed: "ParsedRequest",
    reason: Reason,
    retry_after_s: float,
    took_s: float = 0.0,
) -> None:
    """Write a 503 whose Retry-After is spread, so that the clients do not come back together."""
    note_unanswered(proxy, parsed)
    seconds = max(1, round(retry_after_s * random.uniform(1.0, 2.0)))
    client.write(
        proxy.answers.error(
            parsed.head, 503, reason, client.persistence(parsed.head),
            date=proxy.http_date(), retry_after_s=seconds,
        )
    )  # fmt: skip
    proxy.counters.refused[reason] += 1
    proxy.counters.count_own(parsed.kind is _GET, reason, 503)
    if proxy.access_log is not None:
        who = client.forwarding.client_of(parsed.head)
        proxy.access_log.add(who, parsed.head, parsed.identity, 503, "retter", reason, took_s)


def answer_error(
    proxy: "Proxy",
    client: "DownstreamConnection",
    parsed: "ParsedRequest",
    status: int,
    reason: Reason,
    took_s: float,
) -> None:
    """Write an error of our own in place of the application's answer."""
    note_unanswered(proxy, parsed)
    client.write(
        proxy.answers.error(
            parsed.head, status, reason, client.persistence(parsed.head), date=proxy.http_date()
        )
    )
    proxy.counters.count_own(parsed.kind is _GET, reason, status)
    if proxy.access_log is not None:
        who = client.forwarding.client_of(parsed.head)
        proxy.access_log.add(who, parsed.head, parsed.identity, status, "retter", reason, took_s)


class AwaitedForm:
    """A client that waits until a stored response is decoded for it, and for nothing else.

    Its exchange, if there was one, goes its own way without it.

    Args:
        began_at: When its request came, for the access log.
        status: Of the error that it gets if the response cannot be decoded.
        retry_after_s: For a 503; 0 for other errors.
    """

    __slots__ = (
        "_began_at", "_client", "_parsed", "_proxy", "_reason", "_retry_after_s", "_status",
    )  # fmt: skip

    def __init__(
        self,
        proxy: "Proxy",
        client: "DownstreamConnection",
        parsed: "ParsedRequest",
        reason: Reason,
        began_at: float,
        status: int,
        retry_after_s: float = 0.0,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._parsed = parsed
        self._reason = reason
        self._began_at = began_at
        self._status = status
        self._retry_after_s = retry_after_s

    def wait_for(self, stored: StoredResponse) -> bool:
        """Have the response decoded; False if there is too much to do for that."""
        if not self._proxy.decoding.make(self._parsed.identity, stored, self._made):
            return False
        self._client.await_form()
        return True

    def _made(self, shown: StoredResponse | None) -> None:
        proxy, client, parsed = self._proxy, self._client, self._parsed
        reason, took_s = self._reason, took_so_far_s(proxy, self._began_at)
        now = proxy.loop.time()
        if client.gone:
            proxy.counters.clients_gone += 1
            if proxy.access_log is not None:
                who = client.forwarding.client_of(parsed.head)
                proxy.access_log.add(
                    who, parsed.head, parsed.identity, 0, "cache", Reason.CLIENT_GONE, took_s
                )
            return
        if shown is not None:
            answer_from_store(proxy, client, parsed, shown, reason, now, took_s)
        elif self._retry_after_s:
            refuse(proxy, client, parsed, reason, self._retry_after_s, took_s)
        else:
            answer_error(proxy, client, parsed, self._status, reason, took_s)
        client.exchange_done(now)


def unanswered(
    proxy: "Proxy", client: "DownstreamConnection", body: RequestBody, status: int, reason: Reason
) -> None:
    """Forget a request whose body has not come: nothing of it went to the application."""
    body.release()
    if proxy.access_log is not None:
        parsed = body.parsed
        who = client.forwarding.client_of(parsed.head)
        took_s = took_so_far_s(proxy, body.began_at)
        proxy.access_log.add(who, parsed.head, parsed.identity, status, "retter", reason, took_s)
