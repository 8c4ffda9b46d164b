"""The dashboard's page, fed with any situation, so that none has to be brought about."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from retter.admin import dashboard
from retter.admin.chart import RATES
from retter.admin.situation import LATELY_S, Facts, derive
from retter.base.counters import Answers
from tests.support.admin import FakeAdmin, admin_of

HISTORY_S: Final = 300
AGAIN_S: Final = 1.0  # from one state to the next, unless there is a new one
TROUBLE: Final = ("bad", "busy", "trial")


def _by_kind(answers: Answers, seconds: float = 1.0) -> dict[str, Any]:
    return {kind: getattr(answers, kind) / seconds for kind in RATES}


def document_of(admin: FakeAdmin, facts: Facts) -> dict[str, Any]:
    """Return the state document of RETTER, with the figures of this moment."""
    now, told = time.time(), derive(facts)
    document = admin.state()
    situation = {"since": now - 14, "lasted_s": 14.0}
    situation |= {
        name: getattr(told, name) for name in document["situation"] if name not in situation
    }
    second = _by_kind(facts.all, LATELY_S)
    document |= {
        "state": facts.state,
        "situation": situation,
        "forced": facts.forced,
        "forced_remaining_s": facts.forced_s,
        "paused": facts.paused_s is not None,
        "pause_remaining_s": facts.paused_s,
        "draining": facts.draining,
        "in_flight": facts.in_flight,
        "limit": facts.limit,
        "queue": facts.waiting,
        "held": facts.held,
        "connections": facts.connections,
        "rates": second,
        "second": second,
        "minute": {"gets": _by_kind(facts.gets, 1 / 6), "others": _by_kind(facts.others, 1 / 6)},
        "loop_lag_ms": facts.lag_s * 1000,
        "upstream": document["upstream"] | {"address": facts.upstream, "fault": facts.fault},
    }
    if told.tone in TROUBLE:
        document["incidents"] = [_incident(facts, now)]
        document["events"] = [
            {"at": now - 14, "first_at": now - 14, "times": 1, "from": "CLOSED", "to": facts.state,
             "words": told.now}
        ]  # fmt: skip
    return document


def crowded() -> dict[str, Any]:
    """Return parts of a state document in which every card has something to show."""
    now = time.time()
    long = "GET /a-very-long-segment-of-a-path/that-goes-on/and-on/*"
    words = "GETs above the limit are answered from the store (416 in flight, limit 12)."
    lanes = ("known", "stranger", "heavy")
    return {
        "routes": [
            {"route": "GET /product/*", "state": "CLOSED", "requests": 18_033, "errors": 3,
             "p50_ms": 42.0, "p99_ms": 220.0},
            {"route": "GET /search", "state": "OPEN", "requests": 512, "errors": 250,
             "p50_ms": 900.0, "p99_ms": 5200.0},
            {"route": long, "state": "CLOSED", "requests": 3, "errors": 0, "p50_ms": None,
             "p99_ms": None},
        ],
        "busiest": [
            {"url": "shop.example/product/7?page=2&sort=price&filter=red", "places": 1.7,
             "share": 0.31},
        ],
        "turns": {
            "mode": "on", "sorting": True, "clients": 41,
            "fresh_share": {"visitors": 0.98, "heavy": 0.31},
            "lanes": {lane: {"requests": 3, "places": 2, "waiting": 4} for lane in lanes},
            "heaviest": [
                {"client": "2001:db8:1234:5678::/64", "kind": "address", "lane": "heavy",
                 "demand": 3.21, "share": 0.5},
                {"client": None, "kind": "session", "lane": "known", "demand": 0.2, "share": 0.02},
            ],
        },
        "workers": [
            {"worker": n, "pid": 4711 + n, "requests_rate": 812.3, "in_flight": 4,
             "since": now - 90_000 * n, "restarts": n, "leads": n == 0}
            for n in range(3)
        ],
        "events": [
            {"at": now - n, "first_at": now - n - 3, "times": n + 1, "from": "CLOSED", "to": to,
             "words": words}
            for n, to in enumerate(("LIMITING", "HALF-OPEN", "OPEN", "CLOSED"))
        ],
        "hints": ["GETs carry the cookie popup_seen, which separates visitors."],
        "disk": {"entries": 12_034, "bytes_used": 812_345_678, "commits": 212, "dirty": 3,
                 "not_written": 1, "set_aside": "", "trouble": ""},
        "shared": {"boxes": 3, "written": 123_456, "hits": 789, "dropped": 2, "connected": True},
    }  # fmt: skip


def _incident(facts: Facts, now: float) -> dict[str, Any]:
    told = derive(facts)
    return {
        "number": 1, "began": now - 14, "ended": None, "calm": False, "lasted_s": 14.0,
        "tone": told.tone, "rows": [told.row], "cause": told.now, "spared": facts.gets.stored,
        "causes": [{"row": told.row, "now": told.now, "lasted_s": 14.0}],
        "gets": _by_kind(facts.gets), "others": _by_kind(facts.others),
    }  # fmt: skip


def history_of(facts: Facts) -> dict[str, Any]:
    """Return five minutes that end in this situation; it began 14 seconds ago."""
    second = _by_kind(facts.all, LATELY_S)
    calm = {kind: 24.0 if kind == "fresh" else 0.0 for kind in RATES}
    before = HISTORY_S - 14
    return {
        "step_s": 1.0,
        "state": ["CLOSED"] * before + [facts.state] * 14,
        "p99_ms": [42.0 + i % 7 for i in range(before)] + [90.0] * 14,
        **{kind: [calm[kind]] * before + [second[kind]] * 14 for kind in RATES},
    }


class Fed:
    """A listener that tells the page what a test wants it to tell."""

    def __init__(self, admin: FakeAdmin) -> None:
        self._admin = admin
        self._page = dashboard.build()
        self._new = threading.Condition()
        self._closed = False
        self.answers: dict[str, Any] = {}
        self._state: dict[str, Any] = {}
        fed = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fed._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def tell(self, facts: Facts, **more: Any) -> None:
        """Tell of this situation from now on."""
        self._state = document_of(self._admin, facts) | more
        self.answers["/api/state"] = self._state
        self.answers["/api/history"] = history_of(facts)
        with self._new:
            self._new.notify_all()

    def close(self) -> None:
        self._closed = True
        with self._new:
            self._new.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        path = to.path.partition("?")[0]
        if path == "/":
            policy = self._page.content_security_policy
            self._send(to, "text/html; charset=utf-8", self._page.html, policy)
        elif path == "/api/events":
            self._stream(to)
        elif path in self.answers:
            self._send(to, "application/json", json.dumps(self.answers[path]).encode())
        else:
            to.send_error(404)

    def _send(self, to: BaseHTTPRequestHandler, kind: str, body: bytes, policy: str = "") -> None:
        to.send_response(200)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(body)))
        if policy:
            to.send_header("Content-Security-Policy", policy)
        to.end_headers()
        to.wfile.write(body)

    def _stream(self, to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.send_header("Content-Type", "text/event-stream")
        to.end_headers()
        try:
            while not self._closed:
                to.wfile.write(f"event: state\ndata: {json.dumps(self._state)}\n\n".encode())
                to.wfile.flush()
                with self._new:
                    self._new.wait(AGAIN_S)
        except OSError:
            return  # the page has been closed


@contextmanager
def fed_dashboard() -> Iterator[Fed]:
    """Serve the page until the end of the block."""
    with admin_of() as admin:
        fed = Fed(admin)
        yield fed
        fed.close()
