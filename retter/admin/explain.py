"""The decision about a request that was not sent: what would happen to it now, and why.

The parser, the key, the look-up in the store and the decision are those of a real request. But the
store is only read, and the breaker changes nothing.
"""

from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any

from retter.admin.message import AdminError, Parameters, one
from retter.admin.url import head_bytes, split_url
from retter.base.errors import DownstreamError
from retter.base.reason import Reason
from retter.breaker import Asker, Kind, Permit, Phase, State
from retter.breaker.demand import WINDOW_S
from retter.breaker.fairness import LANE_WORDS
from retter.config.units import format_duration
from retter.http.memo import HeadMemo
from retter.proxy.request import ParsedRequest
from retter.proxy.services import Services
from retter.proxy.stored_choice import entry_to_spare, stale_for_error, stored_for_rejected
from retter.store.hints import advice, made_of
from retter.store.known_sessions import ISSUED
from retter.store.record import STORED_AT, WITHDRAWN
from retter.store.store import StoredResponse
from retter.store.target import url_sessions

if TYPE_CHECKING:
    from retter.store.write_behind import Found

# What a browser sends with each request for a page. These fields separate what is stored.
_OF_BROWSERS = (
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Upgrade-Insecure-Requests", "1"),
)

_WORDS = {
    "forward": "It would be forwarded to the application.",
    "probe": "It would be forwarded, to find out whether the application works again.",
    "stored": "It would be answered from the store, without asking the application.",
    "wait": "It would wait in the queue for a place at the application.",
    "hold": "It would be held until the pause is over.",
    "refuse": "It would be refused with 503: there is no stored response and {}.",
    "error": "It would be refused: RETTER does not forward such a request.",
}
_WHY_REFUSED = {
    Reason.ROUTE_OPEN: "this part of the site fails",
    Reason.FAIR_SHARE: "its client asks for more than its share",
    Reason.PAUSED: "no room for one more that waits for the end of the pause",
}


def explain_soon(
    services: Services, parameters: Parameters, done: Callable[[dict[str, Any]], None]
) -> None:
    """Explain when what is stored for the request has been read from the disk, as for a visitor.

    Args:
        done: Called with what `explain` returns: at once, or within READ_WAIT_S (disk/).

    Raises:
        AdminError: 400: the parameters describe no request.
    """

    def read(found: "dict[bytes, Found]") -> None:
        for key, slot in found.items():
            services.store.shelves.promote(key, slot)
        done(explain(services, parameters))

    disk, keys = services.disk, list[bytes]()
    if disk is not None:
        scheme, head = _head(parameters)
        memo: HeadMemo[ParsedRequest] = HeadMemo(0)
        with suppress(DownstreamError):
            identity = services.heads.parse(head, False, memo, scheme.encode()).identity
            keys = [key for key in services.store.awaited_keys(identity) if disk.is_slow(key)]
    if disk is None or not keys or not disk.load(keys, read):
        done(explain(services, parameters))


def explain(services: Services, parameters: Parameters) -> dict[str, Any]:
    """Return what would happen to the request that the parameters describe.

    Raises:
        AdminError: 400: they describe no request.
    """
    scheme, head = _head(parameters)
    memo: HeadMemo[ParsedRequest] = HeadMemo(0)  # not the proxy's: it is for requests of clients
    try:
        parsed = services.heads.parse(head, False, memo, scheme.encode())
    except DownstreamError as error:
        return {
            "decision": "error", "status": error.status, "reason": error.reason.value,
            "words": f"{_WORDS['error']} {str(error).capitalize()}.",
        }  # fmt: skip
    now = services.loop.time()
    identity, request = parsed.identity, parsed.head
    stored, public = None, False
    if identity.stands_in:
        stored, public = services.store.peek(identity, request, now)
    usable = stale_for_error(services, parsed, now, peeking=True)
    forwarding = services.peers.forwarding_fields(one(parameters, "client"), b"http")
    client = services.peers.client_of(forwarding, parsed)
    has_stored = entry_to_spare(services, parsed, now, peeking=True) is not None
    asker = services.turns.asker_of(forwarding, parsed, client, now, has_stored)
    decision, reason = _decide(services, parsed, client, asker, now)
    sessions = url_sessions(request.target, services.owner_rules) != []
    return {
        "decision": decision,
        "reason": reason.value,
        "words": _words(services, stored, usable, decision, reason, now),
        "state": services.breaker.circuit.state.value,
        "key": {
            # A part of the target may be a session.
            "url": _cut(identity.url) if sessions else identity.url.decode("latin-1"),
            "owner": identity.owner_class.value,
            "owner_id": identity.owner.hex()[:8] or None,  # of a keyed hash
            "made_of": made_of(request, identity.owner_class, services.owner_rules),
            "public_may_stand_in": identity.public_key is not None,
        },
        "advice": advice(request, identity.owner_class, services.owner_rules, services.hints),
        "may_come_from_store": identity.lookup,
        "may_be_stored": identity.store,
        "stored": None if stored is None else _stored(stored, public, now),
        "route": identity.route.decode("latin-1"),
        "turn": _turn(services, asker, now),
        "limits": _limits(services, identity.route, now),
    }


def _head(parameters: Parameters) -> tuple[str, bytes]:
    """Return the scheme and the head of the request."""
    scheme, host, target = split_url(one(parameters, "url"))
    fields: list[tuple[str, str]] = []
    for line in parameters.get("header", []):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise AdminError(400, "write a header as Name: value")
        if name.strip().lower() == "host":
            host = value.strip().encode("latin-1", "replace")
        else:
            fields.append((name.strip(), value.strip()))
    as_client = one(parameters, "as")
    if as_client not in ("", "browser", "program"):
        raise AdminError(400, "as is browser or program")
    if as_client == "browser":
        given = {name.lower() for name, _ in fields}
        # Who names types of their own is another client.
        own = ("accept", "upgrade-insecure-requests") if "accept" in given else ()
        given.update(own)
        fields += [pair for pair in _OF_BROWSERS if pair[0].lower() not in given]
    cookies = [text for text in parameters.get("cookie", []) if text]
    if cookies:
        fields.append(("Cookie", "; ".join(cookies)))
    if not host:
        raise AdminError(400, "the URL has no host; write http://shop.example/a, or a Host header")
    return scheme, head_bytes(one(parameters, "method") or "GET", host, target, fields)


def _turn(services: Services, asker: Asker | None, now: float) -> dict[str, Any]:
    """Return the lane that the request would have, and the figures that decide it."""
    fairness = services.breaker.circuit.fairness
    if fairness is None or asker is None:
        return {"fairness": "off"}
    place = fairness.place_of(asker, now)
    sorting = services.breaker.circuit.state is not State.CLOSED
    limit_s = fairness.limit_s
    return {
        "fairness": services.settings.fairness,
        "lane": LANE_WORDS[place.lane] if sorting else "-",  # requests are not sorted now
        "session_is_known": asker.standing == ISSUED,
        "crawler": asker.crawler or None,
        "demand": round(fairness.demand.demand_of(place.asker, now) / WINDOW_S, 3),
        "heavy_above": round(limit_s / WINDOW_S, 3) if isfinite(limit_s) else None,
    }


def _decide(
    services: Services,
    parsed: ParsedRequest,
    client: int,
    asker: Asker | None,
    now: float,
) -> tuple[str, Reason]:
    """Ask the functions that decide about a real request (`exchange.begin`)."""
    identity = parsed.identity
    entry = entry_to_spare(services, parsed, now, peeking=True)
    age_s = None if entry is None else now - entry[STORED_AT]
    kind = parsed.kind
    if parsed.asks_events and services.awaited_streams.judge(identity.route, client, now):
        kind = Kind.OTHER
    would = services.breaker.would(now, kind, identity.route, identity.key, age_s, client, asker)
    if isinstance(would, Permit):
        if services.breaker.circuit.paused_until is not None:
            return "hold", Reason.PAUSED
        word = "wait" if would.phase is Phase.QUEUED else "forward"
        return ("probe" if would.reason is Reason.PROBE else word), would.reason
    stored = stored_for_rejected(services, parsed, entry, now, peeking=True)
    return ("refuse" if stored is None else "stored"), would.reason


def _words(
    services: Services,
    stored: StoredResponse | None,
    usable: StoredResponse | None,
    decision: str,
    reason: Reason,
    now: float,
) -> str:
    fault = services.pool.fault
    if decision not in ("forward", "probe") or not fault or services.pool.idle:
        because = _WHY_REFUSED.get(reason, "no room in the queue")
        return _WORDS[decision].format(because) + _remark(stored, usable, decision, now)
    begin = f"It would be forwarded, but the application cannot be reached now ({fault})."
    if usable is not None:
        return f"{begin} So the stored response would be used."
    hold_s = services.settings.connect_hold_s
    lasts = f" if that lasts for {format_duration(hold_s)} (--connect-hold)" if hold_s else ""
    return f"{begin} It would get an error{lasts}.{_remark(stored, usable, decision, now)}"


def _remark(
    stored: StoredResponse | None, usable: StoredResponse | None, decision: str, now: float
) -> str:
    if stored is None:
        return "" if decision == "refuse" else " There is no stored response to it."
    if usable is None:
        return f" The stored response is {_fault(stored, now)} and cannot be used."
    if stored.superseded:
        return " The stored response is superseded: it is used only if the application fails."
    if decision in ("stored", "refuse"):
        return ""
    return " If the application failed, the stored response would be used."


def _fault(stored: StoredResponse, now: float) -> str:
    """Return in words why a stored response cannot be used."""
    if stored.age_max_s == WITHDRAWN:
        return "withdrawn by the application (401, 403, 404 or 410)"
    if stored.age(now) > stored.age_max_s:
        return "too old"
    if stored.superseded:
        return "superseded"
    return "in a content coding that the client does not accept"


def _stored(stored: StoredResponse, public: bool, now: float) -> dict[str, Any]:
    return {
        "whose": "everyone's" if public else "the owner's own",
        "status": stored.status,
        "age_s": round(stored.age(now), 1),
        "age_max_s": round(stored.age_max_s, 1),
        "too_old": stored.age(now) > stored.age_max_s,
        "superseded": stored.superseded,
        "bytes": len(stored.body),
        "varies_on": [name.decode("latin-1") for name in stored.vary_names],
    }


def _limits(services: Services, route: bytes, now: float) -> dict[str, Any]:
    snapshot, settings = services.breaker.snapshot(now), services.settings
    return {
        "in_flight": snapshot.in_flight,
        "limit": round(snapshot.limit, 1),
        "queue": services.breaker.circuit.waiting,
        "queue_wait_s": settings.queue_wait_s,
        "patience_s": round(services.breaker.patience_of(route), 2),
        "route_open": route in snapshot.routes_open,
        "upstream_timeout_s": settings.upstream_timeout_s,
    }


def _cut(url: bytes) -> str:
    return url.partition(b"?")[0].partition(b";")[0].decode("latin-1") + "?(session)"
