"""The meaning of a target for the store: its URL, the sessions in it, what a GET of it may change.

All of this follows from the method, the host and the target of a request, and is the same for all
who ask for that. So it is remembered for targets that come again with ever new heads, as the pages
of a site do.
"""

import re
from collections.abc import Callable
from typing import Final

from retter.base.limits import PARAMETER_ESCAPES_MAX, PARAMETERS_MAX
from retter.http.message import QUESTION_MARK, SEMICOLON, SLASH, RequestHead
from retter.store.owner import OwnerRules
from retter.store.personal import carries_nonce

# Targets that are remembered: the pages that are asked for in the same minutes, 0.5 to 1 MB.
TARGETS_MAX: Final = 1024
# Longer ones are mostly somebody's own.
TARGET_BYTES_REMEMBERED_MAX: Final = 256

RouteOf = Callable[[RequestHead], bytes]


def no_route(request: RequestHead) -> bytes:
    """Put every request on one route."""
    return b""


class Target:
    """What a method, a host and a target mean. Immutable: `target_of` makes it."""

    __slots__ = ("asked", "host", "may_be_answered", "method", "route", "sessions", "url")

    def __init__(
        self,
        method: bytes,
        host: bytes,
        url: bytes,
        sessions: list[bytes] | None,
        may_be_answered: bool,
        route: bytes,
        asked: int,
    ) -> None:
        self.method = method
        self.host = host
        self.url = url  # host (lower case) and target, made coarser by the rules
        self.sessions = sessions  # parameters; None: more than are read
        self.may_be_answered = may_be_answered  # from the store, if nothing else is against it
        self.route = route  # for the breaker
        self.asked = asked  # Identity.asked


def target_of(request: RequestHead, rules: OwnerRules, route_of: RouteOf = no_route) -> Target:
    """Find out what a request asks for. Never raises."""
    method, host, target = request.method, request.host, request.target
    sessions: list[bytes] | None = []
    if QUESTION_MARK in target or SEMICOLON in target:
        sessions = url_sessions(target, rules)
    url = stored_url(host, target, rules)
    may_be_answered = (
        (method == b"GET" or method == b"HEAD")
        # A host with a slash would make two URLs of one.
        and SLASH not in host
        and not changes_something(target, rules)
    )
    asked = 0
    if rules.ignore_host or rules.ignore_query or rules.ignore_params:
        asked = _asked(host, target, url)
    return Target(method, host, url, sessions, may_be_answered, route_of(request), asked)


class Targets:
    """Remembers what targets mean that have been asked for more than once.

    Most of what a crawler asks for never comes again. So a target is only remembered if it was the
    last one with its place among `TARGETS_MAX`, a number each: remembering all would cost each new
    one 0.6 us, and looking costs 0.1. Of two methods for one target the latest is remembered.
    """

    __slots__ = ("_known", "_latest", "_route_of", "_rules")

    def __init__(self, rules: OwnerRules, route_of: RouteOf) -> None:
        self._rules = rules
        self._route_of = route_of
        self._known: dict[bytes, Target] = {}  # by host and target; a host may have a slash in it
        self._latest = [0] * TARGETS_MAX

    def __len__(self) -> int:
        return len(self._known)

    def of(self, request: RequestHead) -> Target:
        """Return what a request asks for, as `target_of` does."""
        key = request.host + request.target
        found = self._known.get(key)
        if (
            found is not None
            and found.method == request.method
            and len(found.host) == len(request.host)
        ):
            return found
        found = target_of(request, self._rules, self._route_of)
        latest, mark = self._latest, hash(key)
        place = mark % TARGETS_MAX
        if latest[place] != mark:
            latest[place] = mark
        elif len(key) <= TARGET_BYTES_REMEMBERED_MAX:
            if len(self._known) >= TARGETS_MAX:
                self._known.clear()
            self._known[key] = found
        return found


_LOGOUTS: Final = frozenset((b"logout", b"log-out", b"logoff", b"signout", b"sign-out"))
_logout_segment: Final = re.compile(
    b"/(?:" + b"|".join(sorted(_LOGOUTS)) + rb")(?=[/.;]|\Z)"
).search


def changes_something(target: bytes, rules: OwnerRules) -> bool:
    """Return whether a GET of this target does more than to ask, so that no copy may stand in.

    A logout does: a stored goodbye would leave the session alive. So does what carries a token
    that works once, and what the operator names (`--never-store`).
    """
    lower = target.lower()
    if _may_change(lower):
        path, _, query = lower.partition(b"?")
        if _names_logout(path, query) or (query and carries_nonce(query)):
            return True
    return bool(rules.never_store) and bool(rules.is_never_stored(target))


# A part of all words that are looked for here and in `carries_nonce`, so that nearly all targets
# need one look: half the price of a `find` for each.
_may_change: Final = re.compile(rb"[lsn_](?:og|ign|rf|once|token)").search


def _names_logout(path: bytes, query: bytes) -> bool:
    if _logout_segment(path):
        return True
    words: list[bytes] = []
    for param in query.replace(b";", b"&").split(b"&"):
        name, _, value = param.partition(b"=")
        words += (name, value)
    return not _LOGOUTS.isdisjoint(words)


def _too_many_parameters(target: bytes) -> bool:
    return target.count(b"&") + target.count(b";") + 1 > PARAMETERS_MAX


def url_sessions(target: bytes, rules: OwnerRules) -> list[bytes] | None:
    """Find sessions in the path parameters (;jsessionid=...) and in the query (?PHPSESSID=...).

    Returns:
        The parameters that are sessions; None if there are more parameters than are read.
    """
    if len(target) > PARAMETERS_MAX and _too_many_parameters(target):
        return None
    path, _, query = target.partition(b"?")
    if SEMICOLON not in target:
        params = query.split(b"&")
    else:
        params = query.replace(b";", b"&").split(b"&")
        params += [param.partition(b"/")[0] for param in path.split(b";")[1:]]
    if len(target) > PARAMETER_ESCAPES_MAX and _too_many_escapes(params):
        return None
    is_session = rules.param_is_session
    return [param for param in params if is_session[param.partition(b"=")[0]]]


def _too_many_escapes(params: list[bytes]) -> bool:
    names = [param.partition(b"=")[0] for param in params]
    return sum([name.count(b"%") for name in names]) > PARAMETER_ESCAPES_MAX


def stored_url(host: bytes, target: bytes, rules: OwnerRules) -> bytes:
    """Return a URL as it stands in a key: host and target, made coarser by the rules."""
    if rules.ignore_query or rules.ignore_params:
        path, mark, query = target.partition(b"?")
        if rules.ignore_query or not mark:
            target = path
        elif not _too_many_parameters(target):
            ignored = rules.param_is_ignored
            kept = [p for p in query.split(b"&") if not ignored(p.partition(b"=")[0])]
            target = path + b"?" + b"&".join(kept) if kept else path
    return target if rules.ignore_host else host.lower() + target


def _asked(host: bytes, target: bytes, url: bytes) -> int:
    exactly = host.lower() + target
    return 0 if exactly == url else hash(exactly)
