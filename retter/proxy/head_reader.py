"""Heads of requests and responses for one process: the parsers, what they mean, and their memos."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from retter.base.wildcard import name_matcher
from retter.breaker import Kind, route_of
from retter.compression.compressors import decodable
from retter.config.settings import Settings
from retter.config.units import parse_listen, parse_upstream
from retter.http.binding_schemes import names_binding_scheme
from retter.http.content_coding import Eligibility
from retter.http.forwarding import ForwardingFields
from retter.http.memo import HeadMemo
from retter.http.message import RequestHead, ResponseHead
from retter.http.request_parser import RequestParser
from retter.http.response_parser import ResponseParser
from retter.http.turn_cookie import NAME as TICKET_NAME
from retter.http.turn_cookie import without_ticket
from retter.proxy.request import ParsedRequest
from retter.store.owner import OwnerClass, OwnerRules
from retter.store.policy import identified
from retter.store.target import Targets

# Members of an enum, looked up once.
_GET: Final = Kind.GET
_OTHER: Final = Kind.OTHER
_CREDENTIAL: Final = OwnerClass.CREDENTIAL
_UNREAD: Final = OwnerClass.UNREAD

# All memos together take 12 MiB at most: these, 6 MiB of forms, cookies and targets (templates.py,
# owner.py, target.py), and 0.4 MiB of marks of keys that were offered once (memo.py).
REQUEST_MEMO_BYTES_MAX: Final = 3 * 1024 * 1024
RESPONSE_MEMO_BYTES_MAX: Final = 1024 * 1024

# Paths whose route is remembered: a page is asked for again and again, with ever new queries. A
# miss costs 1 us more than none.
ROUTES_REMEMBERED_MAX: Final = 4096
ROUTE_PATH_BYTES_MAX: Final = 256  # of a path that is remembered: 1 MB of them, not 64


def encoded(names: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the names of a setting as octets, as they are in heads."""
    return tuple([name.encode("latin-1") for name in names])


def _path(request: RequestHead) -> bytes:
    return request.target.partition(b"?")[0]


def _make_route_of(patterns: tuple[bytes, ...], limit_head: bool) -> Callable[[RequestHead], bytes]:
    """Return a function that names routes: by the operator's patterns, else by segments."""

    def method_of(request: RequestHead) -> bytes:
        return b"GET" if limit_head and request.method == b"HEAD" else request.method

    if not patterns and not limit_head:
        return lambda request: route_of(request.method, request.target)
    if not patterns:
        return lambda request: route_of(method_of(request), request.target)
    rules = [(pattern, name_matcher((pattern,))) for pattern in patterns]

    @lru_cache(ROUTES_REMEMBERED_MAX)
    def route_of_path(method: bytes, path: bytes) -> bytes:
        for pattern, matches in rules:
            if matches(path):
                return (b"GET " if method == b"GET" else b"OTHER ") + pattern
        return route_of(method, path)

    def route(request: RequestHead) -> bytes:
        path = _path(request)
        if len(path) > ROUTE_PATH_BYTES_MAX:
            return route_of_path.__wrapped__(method_of(request), path)
        return route_of_path(method_of(request), path)

    return route


def _request_memo_sizes(settings: Settings) -> dict[tuple[bool, bytes], int]:
    """Return the octets of a memo for each kind of peer: trusted or not, over TLS or not.

    The meaning of a head depends on that. The kinds that can occur share the bytes.
    """
    listeners = [parse_listen(text) for text in settings.listen]
    trust = [False, True] if settings.trusted_proxies else [False]
    protos = {b"https" if listener.tls else b"http" for listener in listeners}
    bytes_max = REQUEST_MEMO_BYTES_MAX // max(1, len(trust) * len(protos))
    return {
        (trusted, proto): bytes_max if trusted in trust and proto in protos else 0
        for trusted in (False, True)
        for proto in (b"http", b"https")
    }


def _eligibility(settings: Settings) -> Eligibility | None:
    if not settings.codings:
        return None
    return Eligibility(name_matcher(encoded(settings.compress_types)), settings.compress_min_bytes)


class HeadReader:
    """Reads all heads of one process.

    Args:
        instance: This process's own Via id, to detect a request loop.

    Attributes:
        request_memos: By whether the peer is trusted, and b"http" or b"https".
        response_memo, response_parser: The same for all connections to the application.
        look_around: Called before a head is parsed that the memo does not know: other workers may
            have learnt the meaning of its cookies.
    """

    def __init__(self, settings: Settings, rules: OwnerRules, instance: bytes) -> None:
        self.request_memos: dict[tuple[bool, bytes], HeadMemo[ParsedRequest]] = {
            kind: HeadMemo(bytes_max) for kind, bytes_max in _request_memo_sizes(settings).items()
        }
        self.response_memo: HeadMemo[ResponseHead] = HeadMemo(RESPONSE_MEMO_BYTES_MAX)
        self.response_parser = ResponseParser()
        self.look_around: Callable[[], None] | None = None
        self.instance = instance
        self.configure(settings, rules)

    def configure(self, settings: Settings, rules: OwnerRules) -> None:
        """Use other settings and rules, and clear all memos: heads may mean something else."""
        self._rules = rules
        self._limit_head = settings.limit_head
        self._tickets = settings.fairness == "on"
        self._has_stream_paths = bool(settings.stream_paths)
        self._is_stream = name_matcher(encoded(settings.stream_paths))
        route_of = _make_route_of(encoded(settings.routes), settings.limit_head)
        # The operator's patterns may contain digits.
        self._targets = Targets(rules, route_of, digits_alike=not settings.routes)
        parser = partial(
            RequestParser,
            fields_max=settings.head_fields_max,
            target_bytes_max=settings.target_bytes_max,
            instance=self.instance,
            authority=parse_upstream(settings.upstream).authority,
            is_identity_field=lambda name: rules.field_kinds[name] is not None,
            variant_rules=rules.variant_rules,
            decodable=decodable(),
        )
        self.request_parsers = {trusted: parser(trusted=trusted) for trusted in (False, True)}
        self.response_parser.configure(settings.head_fields_max, _eligibility(settings))
        self.forget_requests()
        for kind, bytes_max in _request_memo_sizes(settings).items():
            self.request_memos[kind].resize(bytes_max)
        self.response_memo.clear()

    def parse(
        self,
        head_bytes: bytes,
        trusted: bool,
        memo: HeadMemo[ParsedRequest],
        proto: bytes = b"http",
        forwarding: ForwardingFields | None = None,
    ) -> ParsedRequest:
        """Parse a request head that the memo does not know, and remember it.

        Args:
            forwarding: Identifies the client, to detect sessions that many clients share.

        Raises:
            DownstreamError: With the status that the client is to get.
        """
        if self.look_around is not None:
            self.look_around()
        # The ticket is removed first: only `Turns` may recognise a visitor by it.
        plain_bytes, ticket = head_bytes, b""
        if self._tickets and head_bytes.find(TICKET_NAME) >= 0:
            plain_bytes, ticket = without_ticket(head_bytes)
        head = self.request_parsers[trusted].parse(plain_bytes)
        return self._meaning(head_bytes, head, memo, proto, forwarding, ticket)

    def parse_plain(
        self,
        data: bytes,
        memo: HeadMemo[ParsedRequest],
        proto: bytes,
        forwarding: ForwardingFields,
    ) -> ParsedRequest | None:
        """Do the same for bytes that may be one whole head; None if that is not plain to see."""
        if self.look_around is not None:
            self.look_around()
        head = self.request_parsers[forwarding.trusted].parse_plain(data)
        if head is None:
            return None
        if self._tickets:
            # A Cookie line always identifies. To search the whole head takes 600 of 110,000
            # instructions of the processor more, and `find` 500 more than `partition`.
            for _, value in head.identity_fields:
                if value.partition(TICKET_NAME)[1]:
                    return None
        return self._meaning(data, head, memo, proto, forwarding, b"")

    def _meaning(
        self,
        head_bytes: bytes,
        head: RequestHead,
        memo: HeadMemo[ParsedRequest],
        proto: bytes,
        forwarding: ForwardingFields | None,
        ticket: bytes,
    ) -> ParsedRequest:
        # The application may answer http with a redirect to https, which would send a client
        # of https round in circles.
        apart = b"https" if proto == b"https" else b""
        method, form = head.method, head.form
        stream = self._has_stream_paths and bool(self._is_stream(_path(head)))
        kind, asks_events = _OTHER, False
        if not stream and not form.upgrade:
            # The answer to a HEAD has no events in it.
            asks_events = form.accepts_events and method != b"HEAD"
            if method == b"GET" or (method == b"HEAD" and self._limit_head):
                kind = _GET
        identity = identified(head, self._targets.of(head), self._rules, self._limit_head, apart)
        if identity.session and forwarding is not None:
            client = forwarding.client_of(head) if forwarding.trusted else forwarding.peer
            if self._rules.seen.used_by(identity.owner, client):
                self.forget_requests()
                target = self._targets.of(head)
                identity = identified(head, target, self._rules, self._limit_head, apart)
        # A request with an Authorization field has one of these classes.
        owner_class, binds = identity.owner_class, False
        if owner_class is _CREDENTIAL or owner_class is _UNREAD:
            binds = names_binding_scheme(head.identity_fields, b"authorization")
        if stream or asks_events or binds:
            # An event stream is for one client, and so is what an authenticated connection brings.
            identity = identity.kept_out()
        parsed = ParsedRequest(head, identity, kind, stream, asks_events, binds, ticket)
        memo.offer(head_bytes, parsed)
        return parsed

    def forget_requests(self) -> None:
        """Forget what requests mean: it has changed."""
        self._rules.cookie_owners.clear()
        for memo in self.request_memos.values():  # the connections look into these very memos
            memo.clear()
