"""Hints for operators: cookies that prevent visitors from getting stored pages, and long polls.

Two kinds of cookies are common. The first is one that does not identify its visitor (`popup_seen`,
with a different number for each visitor). It makes each new visitor another owner, who has no
stored pages. The second is a session cookie that is encrypted anew with each response. It makes
another owner with each page. And a long poll looks like a page of an application that hangs. Each
hint is given once, with the setting that helps. Only the operator can know whether it is safe.

The names of cookies are kept and shown. Of their values, only hashes are kept, with a key of this
process. `now` is monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from retter.http.cookies import CREDENTIAL, LIKELY, OTHER, SESSION, may_be_secret
from retter.http.message import RequestHead, ResponseHead
from retter.store.owner import FieldKind, OwnerClass, OwnerRules
from retter.store.set_cookie import cookies_of, cookies_set

# Names that are counted: of cookies in the requests of visitors without a stored page.
NAMES_MAX: Final = 64
NAME_BYTES_MAX: Final = 64
# A hint is given after so many visitors without a stored page, with so many different values.
UNANSWERED_MIN: Final = 20
VALUES_MIN: Final = 10

# Session values that responses to GETs have set recently, to notice when the next response replaces
# them. 100 bytes each.
GIVEN_MAX: Final = 1024
# A hint needs so many replacements in a row, each at most ROLL_S after the one before. A login, or
# a renewal every five minutes, does not match this.
ROLLS_MIN: Final = 8
ROLL_S: Final = 60.0

# Cookies named in an explanation.
EXPLAINED_MAX: Final = 12


class Hints:
    """Counts the observations that lead to hints; `given` are the hints so far, oldest first."""

    __slots__ = ("_given", "_rolls", "_unanswered", "_values", "given")

    def __init__(self) -> None:
        # By the name of the cookie, or that of the route, which has a space in it.
        self.given: dict[bytes, str] = {}
        self._unanswered: dict[bytes, int] = {}
        self._values: dict[bytes, set[int]] = {}
        # For each value that was set: the number of replacements in a row, and when it was set.
        self._rolls: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def unanswered(self, request: RequestHead, rules: OwnerRules) -> None:
        """Note a visitor with cookies but without a session, for whom nothing was stored."""
        for name, value in cookies_of(request, rules).counted:
            name = name.removesuffix(b"=")
            if name not in self._values:
                if len(self._values) >= NAMES_MAX or not 0 < len(name) <= NAME_BYTES_MAX:
                    continue
                self._values[name] = set()
            values = self._values[name]
            if len(values) < VALUES_MIN:
                values.add(hash(value))
            self._unanswered[name] = self._unanswered.get(name, 0) + 1
            if self.differs(name) and rules.cookie_kinds[name] is OTHER:
                self.given.setdefault(name, ignoring(name))

    def differs(self, name: bytes) -> bool:
        """Return whether a cookie differs between visitors, who get no stored pages."""
        return (
            self._unanswered.get(name, 0) >= UNANSWERED_MIN
            and len(self._values[name]) >= VALUES_MIN
        )

    def replaced(
        self, request: RequestHead, response: ResponseHead, rules: OwnerRules, now: float
    ) -> None:
        """Note a response that replaces a session's value, so that its stored pages are lost."""
        if request.method != b"GET" or response.status != 200:
            return
        carried = dict(cookies_of(request, rules).sessions)
        for cookie in cookies_set(response):
            kind = rules.cookie_kinds[cookie.name]
            before = carried.get(cookie.name)
            if kind not in (SESSION, LIKELY) or before is None or before == cookie.value:
                continue
            if not may_be_secret(kind, cookie.value):
                continue
            number, given_at = self._rolls.pop(hash(before), (0, now))
            number = number + 1 if now - given_at <= ROLL_S else 1
            self._rolls[hash(cookie.value)] = (number, now)
            if len(self._rolls) > GIVEN_MAX:
                self._rolls.popitem(last=False)
            if number >= ROLLS_MIN:
                self.given.setdefault(cookie.name, rolling(cookie.name))

    def takes_long(self, route: bytes, mean_s: float) -> None:
        """Note a part of the site (routes.py) that is limited and takes long for each answer."""
        self.given.setdefault(route, long_poll(route, mean_s))


def shown(name: bytes) -> str:
    """Return a name in a form that is safe to show."""
    text = name[:NAME_BYTES_MAX].decode("latin-1")
    return "".join([one if " " < one < "\x7f" else "?" for one in text])


def ignoring(name: bytes) -> str:
    """Return the hint for a cookie that differs for every visitor."""
    one = shown(name)
    return (
        f"cookie {one} differs for every visitor: --ignore-cookies {one} gives newcomers the "
        "public pages, if it identifies nobody and changes no page"
    )


def rolling(name: bytes) -> str:
    """Return the hint for a session whose cookie changes with each response."""
    one = shown(name)
    return (
        f"session cookie {one} changes with nearly every answer: --rolling-cookies {one} lets its "
        "visitors find their own pages (docs/security.md)"
    )


def long_poll(route: bytes, mean_s: float) -> str:
    """Return the hint for a route, `GET /poll`, whose answers take long."""
    path = shown(route.partition(b" ")[2])
    paths = path.rstrip("*") + "*"
    return (
        f"an answer of {path} takes {mean_s:.0f} s, and others have to wait meanwhile: if it is "
        f"late on purpose (a long poll), --stream-paths '{paths}' forwards it without limit"
    )


def made_of(request: RequestHead, owner_class: OwnerClass, rules: OwnerRules) -> list[str]:
    """Return the parts of a request that determine its owner: names, never values."""
    if owner_class is OwnerClass.UNREAD:
        return ["more cookies or parameters than are read"]
    parts = [
        f"header {shown(name)}"
        for name, _ in request.identity_fields
        if rules.field_kinds[name] is FieldKind.CREDENTIAL
    ]
    cookies = cookies_of(request, rules)
    if cookies.unclear:
        return [*parts, "the whole of Cookie, which applications read in different ways"]
    if owner_class is OwnerClass.SESSION or (parts and cookies.sessions):
        parts += [f"session cookie {shown(name)}" for name, _ in cookies.sessions]
        parts += [f"cookie {shown(name)}, named like a login" for name, _ in cookies.credentials]
    else:
        parts += [f"cookie {shown(name.removesuffix(b'='))}" for name, _ in cookies.counted]
    return list(dict.fromkeys(parts))[:EXPLAINED_MAX]


def advice(
    request: RequestHead, owner_class: OwnerClass, rules: OwnerRules, hints: Hints
) -> list[str]:
    """Return the settings with which this visitor would get stored pages."""
    cookies = cookies_of(request, rules)
    names = [name.removesuffix(b"=") for name, _ in cookies.counted]
    sentences = [hints.given[name] for name in names if name in hints.given]
    if owner_class is OwnerClass.COOKIES and not cookies.unclear:
        sentences += _of_cookies(names, [name for name, _ in cookies.sessions], rules)
    sentences += [
        f"if header {shown(name)} identifies nobody: --neutral-headers {shown(name)}"
        for name, _ in request.identity_fields
        if rules.field_kinds[name] is FieldKind.CREDENTIAL and name != b"authorization"
    ]
    return list(dict.fromkeys(sentences))[:EXPLAINED_MAX]


def _of_cookies(names: Iterable[bytes], sessions: list[bytes], rules: OwnerRules) -> Iterable[str]:
    for name in sessions:
        yield (
            f"cookie {shown(name)} is named like a session, but the application has not been seen "
            "to set it, or many clients share its value: so it does not count as "
            "a session, and all cookies together separate the pages"
        )
    for name in names:
        kind = rules.cookie_kinds[name]
        if kind is OTHER and name not in sessions:
            one = shown(name)
            yield f"if cookie {one} identifies nobody and changes no page: --ignore-cookies {one}"
        elif kind is CREDENTIAL:
            yield (
                f"if cookie {shown(name)} is a session: --session-cookies, with the list of "
                "--check-config"
            )
