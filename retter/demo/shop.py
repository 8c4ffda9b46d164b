"""The shop: its routes, its sessions, its knobs and figures.

It decides for each request how many queries it needs, and makes the response after them.
database.py decides when and how the queries end; server.py reads and writes the bytes.
"""

import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any, Final, cast

from retter.demo import pages
from retter.demo.database import Database, Result, capacity_rps
from retter.demo.knobs import Knobs
from retter.demo.knobs_page import knobs_page
from retter.demo.messages import CSS, JSON, TEXT, EventStream, Page, Reply, Request, see_other

SESSION_COOKIE: Final = "PHPSESSID"  # the default name in PHP
SESSIONS_MAX: Final = 10_000  # a load test starts a session with every POST
CART_ITEMS_MAX: Final = 50
EVENTS_MAX: Final = 3600  # an hour of one event a second

# The field that PHP sends with a session, so that no cache stores a page with a visitor's name.
PRIVATE: Final = ((b"Cache-Control", b"no-store, no-cache, must-revalidate"),)
NOT_FROM_THERE: Final = "The knobs are turned at this machine only, from their own page."
NO_STORE: Final = ((b"Cache-Control", b"no-store"),)
# The style sheet was changed last when the shop opened.
OPENED: Final = (b"Last-Modified", b"Sat, 01 Mar 2025 08:00:00 GMT")


@dataclass(slots=True)
class Session:
    """The session of one browser."""

    user: str = ""
    cart: dict[int, int] = field(default_factory=dict[int, int])


@dataclass(slots=True)
class Served:
    """The counters of the shop's pages; knobs and figures are not counted."""

    gets: int = 0  # requests, including HEAD
    posts: int = 0  # requests with all other methods
    answered: int = 0
    answered_gone: int = 0  # responses to clients that had left before


def etag_of(body: bytes) -> bytes:
    """Return a strong entity tag of a body (RFC 9110 section 8.8.3)."""
    return b'"' + blake2b(body, digest_size=8).hexdigest().encode() + b'"'


def unless_known(request: Request, reply: Reply) -> Reply:
    """Return a 304 if the client has the entity tag of the reply, else the reply."""
    tag = dict(reply.fields).get(b"ETag")
    if tag is None or tag not in [t.strip() for t in request.first(b"if-none-match").split(b",")]:
        return reply
    return Reply(status=304, content_type=b"", fields=reply.fields)


def known_as(body: bytes, content_type: bytes, *fields: tuple[bytes, bytes]) -> Reply:
    """Return a reply with an entity tag, for content that does not change."""
    return Reply(body, content_type=content_type, fields=((b"ETag", etag_of(body)), *fields))


STYLE: Final = known_as(pages.STYLE_SHEET, CSS, OPENED, (b"Cache-Control", b"max-age=60"))


class Shop:
    """The shop of one process. `now_ms` gives the wall clock in milliseconds."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int]) -> None:
        self.database = database
        self.served = Served()
        self.on_turn: Callable[[Knobs], None] = database.turn
        self._now_ms = now_ms
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def bypass(self, request: Request) -> Page | None:
        """Return the page of a request for knobs or figures, which needs no query."""
        route = _BYPASS.get((request.method, request.path))
        if route is None:
            return None
        return Page(lambda: route(self, request))

    def page(self, request: Request) -> Page:
        """Return the page of a request."""
        if request.method in ("GET", "HEAD"):
            return self._page_to_read(request)
        action = _ACTIONS.get(request.path) if request.method == "POST" else None
        if action is not None:
            return Page(lambda: action(self, request), queries=1)
        if request.method == "POST":
            return Page(lambda: self._problem(request, 404, "There is no such form here."))
        return Page(
            lambda: Reply(
                b"GET, HEAD and POST are served here.\n",
                405,
                TEXT,
                ((b"Allow", b"GET, HEAD, POST"),),
            )
        )

    def failed(self, request: Request, result: Result) -> Reply:
        """Return the response to a page whose queries have failed."""
        if result is Result.REFUSED:
            status = self.database.knobs.overflow_status
            return self._problem(request, status, "DB error: too many connections")
        status = self.database.knobs.failing_status
        return self._problem(request, status, "DB error: the server has gone away")

    # Public pages

    def _page_to_read(self, request: Request) -> Page:
        path = request.path
        if path == "/static/shop.css":
            return Page(lambda: unless_known(request, STYLE))
        if path == "/events":
            return Page(self._events)
        if path == "/api/health":
            return Page(lambda: Reply(b'{"ok":true}\n', content_type=JSON, fields=NO_STORE))
        body, title, queries = self._body_of(request)
        if body is not None:
            make = body
            return Page(lambda: self._html(request, title, make()), queries)
        if path == "/about":
            return Page(lambda: self._about(request), queries=1)
        if path.startswith("/api/product/") and (number := _product_number(path[13:])):
            return Page(lambda: unless_known(request, _product_json(number)), queries=1)
        return Page(lambda: self._problem(request, 404, "There is no such page in this shop."))

    def _body_of(self, request: Request) -> tuple[Callable[[], str] | None, str, int]:
        """Return the function for the body of a page, its title, and its number of queries."""
        path = request.path
        if path.startswith("/product/") and (number := _product_number(path[9:])):
            return lambda: pages.product(number), pages.CATALOGUE[number].name, 1
        if path == "/":
            return pages.home, "The Corner Shop", 1
        if path.startswith("/category/") and (slug := path[10:]) in pages.CATEGORIES:
            return lambda: pages.category(slug), pages.CATEGORIES[slug][0], 1
        if path == "/search":
            words = request.parameters().get("q", "")
            return lambda: pages.search(words), "Search", 2  # one finds, one counts
        if path == "/cart":
            return lambda: pages.cart(self._session(request).cart), "Cart", 1
        if path == "/login":
            return pages.login, "Log in", 0
        return None, "", 0

    def _html(self, request: Request, title: str, body: str, status: int = 200) -> Reply:
        fields = PRIVATE if request.cookie(SESSION_COOKIE) else ()
        return Reply(pages.layout(title, body, self._stamp(request)), status, fields=fields)

    def _problem(self, request: Request, status: int, text: str) -> Reply:
        title = "Not found" if status == 404 else "Something went wrong"
        return self._html(request, title, pages.problem(title, text), status)

    def _about(self, request: Request) -> Reply:
        # It has no stamp, so that a client can revalidate it: same bytes, same tag.
        made = pages.Stamp(made_ms=0, query=0, user="", in_cart=0)
        body = pages.layout("About", pages.about(), made)
        return unless_known(request, known_as(body, b"text/html; charset=utf-8", OPENED))

    def _events(self) -> EventStream:
        return EventStream(self._event, interval_s=1.0, events_max=EVENTS_MAX)

    def _event(self, number: int) -> bytes:
        figures = json.dumps(self.stats(), separators=(",", ":"))
        return f"id: {number}\nevent: stats\ndata: {figures}\n\n".encode()

    # Sessions and the cart

    def _session(self, request: Request) -> Session:
        return self._sessions.get(request.cookie(SESSION_COOKIE)) or Session()

    def _stamp(self, request: Request) -> pages.Stamp:
        session = self._session(request)
        return pages.Stamp(
            made_ms=self._now_ms(),
            query=self.database.figures.queries,
            user=session.user,
            in_cart=sum(session.cart.values()),
        )

    def _own_session(self, request: Request) -> tuple[Session, tuple[tuple[bytes, bytes], ...]]:
        """Return the session, which is made if there is none, and its response fields."""
        key = request.cookie(SESSION_COOKIE)
        if key in self._sessions:
            self._sessions.move_to_end(key)
            return self._sessions[key], ()
        return self._new_session(Session())

    def _new_session(self, session: Session) -> tuple[Session, tuple[tuple[bytes, bytes], ...]]:
        key = secrets.token_hex(16)
        self._sessions[key] = session
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        cookie = f"{SESSION_COOKIE}={key}; Path=/; HttpOnly; SameSite=Lax"
        return session, ((b"Set-Cookie", cookie.encode()),)

    def _log_in(self, request: Request) -> Reply:
        name = _form(request).get("name", "").strip()[:40]
        if not name:
            return see_other("/login")
        cart = self._session(request).cart
        self._sessions.pop(request.cookie(SESSION_COOKIE), None)
        # A new key at every login, against session fixation.
        _, fields = self._new_session(Session(name, cart))
        return see_other("/", *fields)

    def _log_out(self, request: Request) -> Reply:
        self._sessions.pop(request.cookie(SESSION_COOKIE), None)
        return see_other("/", (b"Set-Cookie", f"{SESSION_COOKIE}=; Path=/; Max-Age=0".encode()))

    def _cart_add(self, request: Request) -> Reply:
        number = _product_number(_form(request).get("product", ""))
        if not number:
            return self._problem(request, 404, "There is no such product.")
        session, fields = self._own_session(request)
        if number in session.cart or len(session.cart) < CART_ITEMS_MAX:
            session.cart[number] = min(session.cart.get(number, 0) + 1, 99)
        return see_other("/cart", *fields)

    def _cart_empty(self, request: Request) -> Reply:
        session, fields = self._own_session(request)
        session.cart.clear()
        return see_other("/cart", *fields)

    # Knobs and figures

    def stats(self) -> dict[str, Any]:
        """Return the figures of /stats.json."""
        knobs = self.database.knobs
        return {
            "application": "retter demo",
            "condition": knobs.condition,
            "capacity_rps": capacity_rps(knobs),
            **asdict(self.database.figures),
            **asdict(self.served),
        }

    def _stats_json(self, request: Request) -> Reply:
        return _json(self.stats())

    def _reset_stats(self, request: Request) -> Reply:
        stats = self.stats()
        self.database.reset_figures()
        self.served = Served()
        return _json(stats)

    def _knobs_json(self, request: Request) -> Reply:
        return _json(self.database.knobs.as_json())

    def _knobs_html(self, request: Request) -> Reply:
        return Reply(knobs_page(self.database.knobs), fields=NO_STORE)

    def _turn_json(self, request: Request) -> Reply:
        if not _may_turn(request):
            return _json({"error": NOT_FROM_THERE}, 403)
        try:
            self._turn(json.loads(request.body))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _json({"error": 'the body is not JSON, as {"condition": "slow"}'}, 400)
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return self._knobs_json(request)

    def _turn_html(self, request: Request) -> Reply:
        if not _may_turn(request):
            return Reply(NOT_FROM_THERE.encode() + b"\n", 403, TEXT, NO_STORE)
        try:
            self._turn(_form(request))
        except ValueError as error:
            return Reply(f"{error}\n".encode(), 400, TEXT, NO_STORE)
        return see_other("/knobs")

    def _turn(self, wishes: Any) -> None:
        if not isinstance(wishes, Mapping):
            raise ValueError('an object of knobs is needed, such as {"connections": 4}')
        self.on_turn(self.database.knobs.changed(cast(Mapping[str, Any], wishes)))


Route = Callable[[Shop, Request], Reply]

_ACTIONS: Final[Mapping[str, Route]] = {
    "/login": Shop._log_in,
    "/logout": Shop._log_out,
    "/cart/add": Shop._cart_add,
    "/cart/empty": Shop._cart_empty,
}
_BYPASS: Final[Mapping[tuple[str, str], Route]] = {
    ("GET", "/knobs"): Shop._knobs_html,
    ("POST", "/knobs"): Shop._turn_html,
    ("GET", "/knobs.json"): Shop._knobs_json,
    ("POST", "/knobs.json"): Shop._turn_json,
    ("GET", "/stats.json"): Shop._stats_json,
    ("POST", "/stats.json"): Shop._reset_stats,
}


def _json(content: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(json.dumps(content).encode() + b"\n", status, JSON, NO_STORE)


def _product_json(number: int) -> Reply:
    item = pages.CATALOGUE[number]
    body = json.dumps(asdict(item), ensure_ascii=False).encode() + b"\n"
    return known_as(body, JSON)


def _product_number(text: str) -> int:
    """Return the number of an existing product, else 0."""
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        return 0
    return int(text) if int(text) in pages.CATALOGUE else 0


def _form(request: Request) -> dict[str, str]:
    try:
        return request.form()
    except ValueError:
        return {}


def _may_turn(request: Request) -> bool:
    """Return whether the request comes from this machine, and from the knobs' own page.

    The shop listens on loopback. A proxy in front of it may accept other clients, and appends their
    addresses. Clients that are not browsers send no Origin.
    """
    client = request.first(b"x-forwarded-for").rpartition(b",")[2].strip().decode("latin-1")
    origin = request.first(b"origin")
    own_page = not origin or origin.partition(b"://")[2] == request.first(b"host")
    return own_page and (not client or _is_loopback(client))


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False
