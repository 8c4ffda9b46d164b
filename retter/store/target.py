"""The meaning of a target for the store: its URL, its sessions, whether a GET may change something.

All of this depends only on the method, the host and the target of a request, and is the same for
all clients. So it is remembered for targets that are requested repeatedly with different heads,
such as the pages of a site, and for *shapes*: targets that differ only in their digits, such as the
numbers of articles, of pages and of moments.
"""

import re
from array import array
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from retter.base.limits import PARAMETER_ESCAPES_MAX, PARAMETER_MARKS_MAX, PARAMETERS_MAX
from retter.http.message import DOT, PERCENT, QUESTION_MARK, QUOTE, SEMICOLON, SLASH, RequestHead
from retter.store.owner import NAME_BYTES_REMEMBERED_MAX, NAMES_REMEMBERED_MAX, OwnerRules
from retter.store.personal import carries_nonce

# Remembered targets: the pages that are requested in the same minutes, 0.5 to 1 MB.
TARGETS_MAX: Final = 1024
# Longer targets usually belong to one visitor.
TARGET_BYTES_REMEMBERED_MAX: Final = 256

# Remembered shapes: a site has some dozens of kinds of pages. 100 KB at most.
SHAPES_MAX: Final = 256

# Longer targets are read by the functions that limit what a stranger's parameters cost.
HARMLESS_BYTES_MAX: Final = min(PARAMETERS_MAX, PARAMETER_ESCAPES_MAX, 512)

RouteOf = Callable[[RequestHead], bytes]


def no_route(request: RequestHead) -> bytes:
    """Return the same route for every request."""
    return b""


class Target:
    """The meaning of a method, a host and a target. Immutable: `target_of` makes it."""

    __slots__ = (
        "asked", "host", "may_be_answered", "may_be_stored", "method", "route", "sessions", "url",
    )  # fmt: skip

    def __init__(
        self,
        method: bytes,
        host: bytes,
        url: bytes,
        sessions: list[bytes] | None,
        may_be_answered: bool,
        route: bytes,
        asked: int,
        may_be_stored: bool = True,
    ) -> None:
        self.method = method
        self.host = host
        # Host (lower case) and target, made coarser by the rules; b"" of a shape: as they are.
        self.url = url
        self.sessions = sessions  # parameters; None: too many to read
        self.may_be_answered = may_be_answered  # from the store, if nothing else forbids it
        self.route = route  # for the breaker
        self.asked = asked  # Identity.asked
        self.may_be_stored = may_be_stored  # the same of its response


def target_of(request: RequestHead, rules: OwnerRules, route_of: RouteOf = no_route) -> Target:
    """Return the target of a request. Never raises."""
    method, host, target = request.method, request.form.host, request.target
    sessions: list[bytes] | None = []
    harmless = _is_harmless(target.lower(), rules)
    if not harmless and (QUESTION_MARK in target or SEMICOLON in target):
        sessions = url_sessions(target, rules)
    url = host.lower() + target if rules.exact_urls else stored_url(host, target, rules)
    may_be_answered = (
        (method == b"GET" or method == b"HEAD")
        # With a slash in the host, two different requests would have the same URL.
        and SLASH not in host
        and (harmless or not changes_something(target, rules))
    )
    asked = 0 if rules.exact_urls else _asked(host, target, url)
    may_be_stored = not asked or not _ignores_markup(target, rules)
    return Target(
        method, host, url, sessions, may_be_answered, route_of(request), asked, may_be_stored
    )


_DIGITS: Final = b"0123456789"
# All digits become one. Shapes and targets have the same length.
_DIGITS_ALIKE: Final = bytes.maketrans(_DIGITS, b"0" * len(_DIGITS))
# Each digit becomes another one.
_DIGITS_CHANGED: Final = bytes.maketrans(_DIGITS, b"1234567890")


# Beginnings of routes that are remembered for a shape: `/v1`, `/v2`. Most shapes have none.
BEGINNINGS_MAX: Final = 8


class _Shape:
    """The meaning of all targets that differ only in digits, where that makes no difference.

    Args:
        target: Without a URL, and with the route if that is the same for all.
        route: How the route follows from the digits otherwise (`_route_around`).
    """

    __slots__ = ("_route_end", "_route_start", "by_beginning", "copied", "target")

    def __init__(self, target: Target, route: tuple[bytes, int, bytes]) -> None:
        self.target = target
        self._route_start, self.copied, self._route_end = route
        self.by_beginning: dict[bytes, Target] = {}

    def with_route(self, beginning: bytes) -> Target:
        """Remember and return the meaning of the targets that begin like this.

        Their route contains some of the digits. What is remembered is in `by_beginning`.
        """
        one, route = self.target, self._route_start + beginning + self._route_end
        target = Target(one.method, one.host, b"", [], one.may_be_answered, route, 0)
        if len(self.by_beginning) >= BEGINNINGS_MAX:
            self.by_beginning.clear()
        self.by_beginning[beginning] = target
        return target


class Targets:
    """Remembers the meaning of targets that were requested more than once.

    Most targets of a crawler are never requested again. So a target is remembered only at its
    second request. A table with `TARGETS_MAX` places notes the hash of each new target; a later
    target with the same place overwrites it. This check costs 0.1 us; to remember every new target
    would cost 0.6 us. If a target is requested with two methods, or of two hosts, the latest is
    remembered.

    Of the targets that are new, most differ from an earlier one only in digits: the page of another
    article, or the same one at another moment. Their meaning is that of their shape, which takes
    2,000 instructions of the processor to find instead of 25,000 (`_shape_of` says of which).

    Args:
        digits_alike: A route does not depend on which digits a target has, except that it may
            contain them.
    """

    __slots__ = ("_digits_alike", "_known", "_latest", "_route_of", "_rules", "_shapes")

    def __init__(self, rules: OwnerRules, route_of: RouteOf, *, digits_alike: bool = False) -> None:
        self._rules = rules
        self._route_of = route_of
        # The URLs of a shape contain its digits: they are put together for each request.
        self._digits_alike = digits_alike and rules.exact_urls
        self._known: dict[bytes, Target] = {}  # by target
        self._shapes: dict[bytes, _Shape] = {}  # by target, with all digits alike
        self._latest = array("q", bytes(8 * TARGETS_MAX))

    def __len__(self) -> int:
        return len(self._known) + len(self._shapes)

    def of(self, request: RequestHead) -> Target:
        """Return the target of a request, as `target_of` does; of a shape, without the URL."""
        key, method, host = request.target, request.method, request.form.host
        target = self._known.get(key)
        if target is not None and target.method == method and target.host == host:
            return target
        text = key
        if self._digits_alike:
            text = key.translate(_DIGITS_ALIKE)
            shape = self._shapes.get(text)
            if shape is not None:
                target = shape.target
                if target.method == method and target.host == host:
                    if not shape.copied:
                        return target
                    beginning = key[: shape.copied]
                    return shape.by_beginning.get(beginning) or shape.with_route(beginning)
        target = target_of(request, self._rules, self._route_of)
        if self._came_before(key):
            if len(self._known) >= TARGETS_MAX:
                self._known.clear()
            self._known[key] = target
        elif text != key and self._came_before(text):
            found = self._shape_of(request, target)
            if found is not None:
                if len(self._shapes) >= SHAPES_MAX:
                    self._shapes.clear()
                self._shapes[text] = found
        return target

    def _came_before(self, key: bytes) -> bool:
        """Note a key; return whether it was noted before, and may be remembered."""
        latest, mark = self._latest, hash(key)
        place = mark % TARGETS_MAX
        if latest[place] != mark:
            latest[place] = mark
            return False
        return len(key) <= TARGET_BYTES_REMEMBERED_MAX

    def _shape_of(self, request: RequestHead, target: Target) -> _Shape | None:
        """Return the shape of a target; None if its digits may matter.

        They do not if the target is plainly harmless, and if no parameter has digits in its name:
        few of the words that are searched for in paths and in values have any.
        """
        key = request.target
        lower = key.lower()
        if not _is_harmless(lower, self._rules):
            return None
        alike = lower.translate(_DIGITS_ALIKE)
        if any(word in alike for word in _LOGOUTS_WITH_DIGITS):
            return None
        names = [param.partition(b"=")[0] for param in key.partition(b"?")[2].split(b"&")]
        if any(name.translate(None, _DIGITS) != name for name in names):
            return None
        other = request.with_target(key.translate(_DIGITS_CHANGED))
        route = _route_around(key, target.route, other.target, self._route_of(other))
        if route is None:
            return None
        shared = Target(
            target.method, target.host, b"", [], target.may_be_answered, target.route, 0
        )
        return _Shape(shared, route)


def _route_around(
    target: bytes, route: bytes, other: bytes, other_route: bytes
) -> tuple[bytes, int, bytes] | None:
    """Return how the route of a target follows from the digits of the target.

    The other target is the same with other digits. A route may begin with the path up to its first
    identifier: `GET /v1/articles/*`.

    Returns:
        What is before the copied part of the target, the length of that part, and what follows it.
        None if the routes differ in anything else.
    """
    if route == other_route:
        return b"", 0, b""
    at, copied = route.find(b"/"), 0
    for place, (one, changed) in enumerate(zip(route, other_route, strict=False)):
        if one != changed:
            copied = place - at + 1
    start, end = route[:at], route[at + copied :]
    if route == start + target[:copied] + end and other_route == start + other[:copied] + end:
        return start, copied, end
    return None


def _is_harmless(lower: bytes, rules: OwnerRules) -> bool:
    """Return whether a target in lower case plainly has no session, and a GET changes nothing.

    Nearly all targets are of this kind. The same follows from `url_sessions` and
    `changes_something`, which decide about all others, but these read the target several times:
    4,500 instructions of the processor instead of 13,000 for a path and three parameters.
    """
    if SEMICOLON in lower or len(lower) > HARMLESS_BYTES_MAX or rules.never_store:
        return False
    path, _, query = lower.partition(b"?")
    if _logout_segment(path) if DOT in path else not _LOGOUT_PARTS.isdisjoint(path.split(b"/")):
        return False
    if query:
        known = rules.harmless_params.get
        for param in query.split(b"&"):
            name, _, value = param.partition(b"=")
            if _is_logout(value) or not (known(name) or _is_harmless_name(name, rules)):
                return False
    return True


def _is_harmless_name(name: bytes, rules: OwnerRules) -> bool:
    """Return whether a parameter's lower-case name is neither of a session nor of a change."""
    if _is_logout(name) or carries_nonce(name) or rules.param_is_session[name]:
        return False
    if len(name) <= NAME_BYTES_REMEMBERED_MAX:
        if len(rules.harmless_params) >= NAMES_REMEMBERED_MAX:
            rules.harmless_params.clear()
        rules.harmless_params[name] = True
    return True


# `logout`, also of somebody: `customer-logout` (WooCommerce), `mylogout` (PrestaShop), `doLogout`.
_LOGOUT_WORDS: Final = (
    b"logout", b"log-out", b"log_out", b"logoff", b"log-off", b"log_off", b"signout", b"sign-out",
    b"sign_out", b"signoff", b"sign-off", b"sign_off",
)  # fmt: skip
_LOGGED_OUT: Final = (b"user", b"customer", b"account", b"member", b"admin", b"auth", b"my", b"do")
# Of all devices; of whom; the names of classes (Struts, servlets); ASP.NET's with OpenID Connect.
_LOGOUT_ENDINGS: Final = (
    b"-all", b"_all", b"all", b"user", b"-user", b"_user", b"action", b"servlet", b"-oidc",
)  # fmt: skip
_EVERYWHERE: Final = (b"", *_LOGOUT_ENDINGS)
# Other names: Spring Security, OpenID Connect, MediaWiki, PayPal, Symfony (who becomes another
# user, or ends that), and in other languages.
_OTHER_LOGOUTS: Final = (
    b"j_spring_security_logout", b"j_acegi_logout", b"endsession", b"end-session", b"end_session",
    b"special:userlogout", b"special:logout", b"spezial:abmelden", b"_logout", b"_switch_user",
    b"abmelden", b"abmeldung", b"ausloggen",
    b"deconnexion", b"d%c3%a9connexion", b"se-deconnecter", b"se-d%c3%a9connecter", b"deconnecter",
    b"cerrar-sesion", b"cerrar-sesi%c3%b3n", b"cerrar_sesion", b"cerrarsesion", b"salir", b"sair",
    b"terminar-sessao", b"encerrar-sessao", b"esci", b"disconnetti",
    b"uitloggen", b"afmelden", b"logga-ut", b"loggaut", b"logg-ut", b"loggut", b"log-ud", b"logud",
    b"kirjaudu-ulos", b"wyloguj", b"wylogowanie", b"odhlasit", b"odhlaseni", b"odhlasenie",
    b"odjava", b"kijelentkezes", b"deconectare", b"cikis", b"oturumu-kapat", b"keluar",
    b"dang-xuat",
)  # fmt: skip
# `d%c3%a9connexion`, with all digits alike.
_LOGOUTS_WITH_DIGITS: Final = tuple(
    word.translate(_DIGITS_ALIKE)
    for word in _OTHER_LOGOUTS
    if word.translate(None, _DIGITS) != word
)
_LOGOUTS: Final = frozenset(
    (
        *[word + where for word in _LOGOUT_WORDS for where in _EVERYWHERE],
        *[
            who + between + word + where
            for who in _LOGGED_OUT
            for between in (b"", b"-", b"_")
            for word in _LOGOUT_WORDS
            for where in _EVERYWHERE
        ],
        *_OTHER_LOGOUTS,
    )
)
# Last segments of the path of a logout: `/session/destroy`, `/exit`, `/saml/slo` (single logout).
_LAST_SEGMENTS: Final = (b"destroy", b"end", b"terminate", b"exit", b"quit", b"disconnect")
_SINGLE_LOGOUTS: Final = (b"slo", b"sls")
_LOGOUT_PARTS: Final = _LOGOUTS.union(_LAST_SEGMENTS, _SINGLE_LOGOUTS)


def _any_of(words: Iterable[bytes]) -> bytes:
    """Return a pattern of the words, grouped by the first octet: most groups need one look."""
    groups: dict[bytes, list[bytes]] = {}
    for word in words:
        groups.setdefault(word[:1], []).append(word[1:])
    return b"|".join(first + b"(?:" + b"|".join(rest) + b")" for first, rest in groups.items())


_logout_segment: Final = re.compile(
    b"/(?=[a-z_])(?:(?:(?:" + _any_of(_LOGGED_OUT) + b")[-_]?+)?+(?:" + _any_of(_LOGOUT_WORDS)
    + b")(?:" + b"|".join(_LOGOUT_ENDINGS) + b")?+|" + _any_of(_OTHER_LOGOUTS)
    + rb"|(?:sessions?+|auth)/(?:destroy|end|terminate)|(?:exit|quit|disconnect)/?+\Z"
    + rb"|saml[0-9]?+/(?:[^/]{1,64}+/)?+sl[os])(?=[/.;!]|\Z)"
).search  # fmt: skip
_LOGOUT_ENDS: Final = (b"out", b"off")
# The last two are `/` and `:`, whatever the digit: the words have none (`_shape_of`).
_parts_of_word: Final = re.compile(rb"[./:!]|%[0-9]f|%[0-9]a").split


def changes_something(target: bytes, rules: OwnerRules) -> bool:
    """Return whether a GET of this target may change something, so that no copy may answer it.

    This is true for a logout, because a stored page would not end the session. It is also true for
    a target with a token that works once, and for those that the operator names (`--never-store`).
    Too many parameters or segments are not read: any of them may be one of these.
    """
    if _too_many_parts(target):
        return True
    lower = target.lower()
    if _may_change(lower):
        path, _, query = lower.partition(b"?")
        if _names_logout(path, query) or (query and carries_nonce(query)):
            return True
    return bool(rules.never_store) and bool(rules.is_never_stored(target))


# Words in other languages, and words of which many paths have a part: only behind what may be
# before them. A set of octets comes first, so that all others are passed over in a short loop.
_other_change: Final = re.compile(
    rb"[/?&;=](?:" + _any_of(_OTHER_LOGOUTS)
    + rb"|(?<=/)(?:" + _any_of((*_LAST_SEGMENTS, *_SINGLE_LOGOUTS)) + b"))"
).search  # fmt: skip


def _may_change(lower: bytes) -> bool:
    """Return whether a target in lower case may name a logout or a token.

    A part of each word that is searched for by `_names_logout` and `carries_nonce`. Nearly all
    targets need only this: 1.5 us for 70 octets. One pattern for all took 2.3, and for 16 KiB of
    ampersands 1.8 ms.
    """
    find = lower.find
    return (
        find(b"log") >= 0
        or find(b"sign") >= 0
        or find(b"tok") >= 0
        or find(b"srf") >= 0
        or find(b"nonce") >= 0
        or find(b"skey") >= 0
        or find(b"_key") >= 0
        or find(b"_auth") >= 0
        or find(b"mhash") >= 0
        or _other_change(lower) is not None
    )


def _names_logout(path: bytes, query: bytes) -> bool:
    if _logout_segment(path):
        return True
    words: list[bytes] = []
    for param in query.replace(b";", b"&").split(b"&"):
        name, _, value = param.partition(b"=")
        words += (name, value)
    return any(map(_is_logout, words))


def _is_logout(word: bytes) -> bool:
    """Return whether a parameter's lower-case name or value names a logout.

    It may be the last part of a route: `user.logout` (Joomla), `account/logout` (OpenCart, Yii).
    """
    return word in _LOGOUTS or (
        word.endswith(_LOGOUT_ENDS) and _parts_of_word(word)[-1] in _LOGOUTS
    )


# In a segment, or in a parameter's name or value: `/users/sign_in`, `/wp-login.php`,
# `/?action=logout`, `/?task=user.logout`. `/session` only at the end: others may be talks.
# Whoever comes back from OpenID Connect, OAuth, SAML or CAS, or follows a link in a mail, is logged
# in by that.
_person_changes: Final = re.compile(
    rb"[/?&;=](?=[a-z][-_.a-z])(?:(?:[a-z]{1,16}+[-_.])?(?:log|sign)[-_]?(?:in|on|out|off)(?:-oidc)?(?=[/?&;=.]|\Z)"
    rb"|(?<=/)(?:"
    rb"(?:sessions?|auth|authenticate|(?:[a-z]{1,16}+[-_])?callback|acs|magic[-_]?link)/?(?=\?|\Z)"
    rb"|(?:impersonate|masquerade|hijack|magic[-_]?link|magic[-_]?login)/"
    rb"|(?:stop[-_])?impersonat(?:e|ing)/?(?=\?|\Z)|switch[-_]user/?(?=\?|\Z)"
    rb"|(?:accounts?|users?)/switch(?=[/?]|\Z))|(?<=[?&])ticket=st-)"
).search
# OAuth, whatever the path is called (RFC 6749 section 4.1.2): `/complete/google/?state=a&code=b`.
_has_code: Final = re.compile(rb"[?&]code=").search
_has_state: Final = re.compile(rb"[?&]state=").search
# With DELETE: `/sessions/17`, `/api/session/current`.
_one_session: Final = re.compile(rb"/sessions?/[^/?]{1,64}/?(?=\?|\Z)").search


def changes_person(target: bytes) -> bool:
    """Return whether a target is named as one that logs somebody in or out.

    An application that keeps the id of the session over a login and a logout says nothing else of
    it: PHP's `session_destroy` leaves the cookie as it is.

    This is asked for each form. A site has some dozens of targets for these, and the two patterns
    take 53,000 of the 224,000 instructions of the processor that a form takes.
    """
    if len(target) <= TARGET_BYTES_REMEMBERED_MAX:
        return _remembered_change(target)
    return _changes_person(target)


def _changes_person(target: bytes) -> bool:
    if _too_many_parts(target):
        return True  # any of them may be named so
    lower = target.lower()
    if _person_changes(lower) is not None:
        return True
    if _has_code(lower) is not None and _has_state(lower) is not None:
        return True
    return ends_login(target)


def ends_one_session(target: bytes) -> bool:
    """Return whether a target is named as one session: to DELETE it is a logout."""
    return _one_session(target.lower()) is not None


# Targets of forms: 0.1 MB at most.
_remembered_change: Final = lru_cache(SHAPES_MAX)(_changes_person)


def ends_login(target: bytes) -> bool:
    """Return whether a target is named as a logout."""
    lower = target.lower()
    if _too_many_parts(target) or not _may_change(lower):
        return False
    path, _, query = lower.partition(b"?")
    return _names_logout(path, query)


# The name of a field of a form, of a part of one, or of a member of JSON: `password=`,
# `user[pass]=`, `name="user_password"`, `"Passwd":`, `pwd=`, and in other languages.
_PASSWORD_NAMES: Final = (
    b"pass", b"passwd", b"passwt", b"password", b"passwort", b"passphrase", b"passcode", b"passe",
    b"pwd", b"senha", b"kennwort", b"contrasena", b"contrase%c3%b1a", b"contrase\xc3\xb1a",
    b"clave", b"wachtwoord", b"haslo", b"heslo", b"parola", b"sifre",
)  # fmt: skip


def _from_the_end(words: Iterable[bytes]) -> bytes:
    """Return a pattern of the words with their octets in reverse, grouped by the last one."""
    groups: dict[bytes, list[bytes]] = {}
    for word in words:
        groups.setdefault(word[-1:], []).append(word[-2::-1])
    return b"|".join(end + b"(?:" + b"|".join(rest) + b")" for end, rest in groups.items())


# They are searched for from the end: few octets are `=` or a quotation mark. For a text of 10 KiB
# this takes 230,000 instructions of the processor; where each name begins, 1,000,000.
_PASSWORD: Final = rb"(?:\]|d5%)?+[-_0-9]{0,8}+(?:" + _from_the_end(_PASSWORD_NAMES) + b")"
_password_before_equals: Final = re.compile(b"=" + _PASSWORD).search
_password_in_quotes: Final = re.compile(
    rb"\"(?:(?<=[:;]\")|(?<=:[ ]\")|(?<=\n\r\"))" + _PASSWORD
).search
# What an identity provider says of who has logged in: SAML, OpenID Connect, Google.
_ASSERTIONS: Final = (b"samlresponse=", b"id_token=", b"credential=ey")
_person_before_equals: Final = re.compile(
    b"=(?:" + _PASSWORD + b"|" + _from_the_end((b"samlresponse", b"id_token"))
    + b"|(?<=ye=)laitnederc)"
).search  # fmt: skip
# A part of each name but those with `ass`, for a body with names behind its beginning. With a
# pattern this takes 50,000 to 110,000, so 20,000 more.
_PASSWORD_PARTS: Final = (
    b"pass", b"pwd", b"senha", b"wort", b"contrase", b"clave", b"woord", b"slo", b"parola",
    b"sifre",
)  # fmt: skip
_PARTS: Final = (*_PASSWORD_PARTS, *_ASSERTIONS)
# A login form is small, but ASP.NET's begins with the state of the page.
PASSWORD_WITHIN_BYTES: Final = 16 * 1024
_BEGINNING_BYTES: Final = 1024
_LAST_MARK_MAX: Final = _BEGINNING_BYTES - 3  # two octets after a quotation mark belong to it
_SHORT_BYTES: Final = 256  # where its names end is not looked for

# A logout as the name or the value of a field, or as a method: `action=logout`, `logout=1`,
# `{"method":"user.logout"`, `mutation { signOut {`, or `{login(` (GraphQL).
_logout_word: Final = re.compile(
    rb"(?:\A|[&=\"'{(./:]|\\n|\n)[ ]{0,8}+(?:(?:" + b"|".join(_LOGGED_OUT)
    + rb")[-_]?+)?+(?:log|sign)[-_]?+"
    rb"(?:(?:out|off)(?:[-_]?+(?:all|user))?+(?![-_+%0-9a-z]|[ ][a-z])|in[ ]?\()"
).search  # fmt: skip
# Microsoft sends a code before it, which may have 2 KB.
_ID_TOKEN: Final = b"&id_token="
_ID_TOKEN_WITHIN_BYTES: Final = 4 * 1024
# Each of these has this, and few texts do: the pattern above takes 260,000 instructions of the
# processor for 1 KiB of text, this one 15,000.
_may_be_logout: Final = re.compile(rb"gn?+[-_]?+(?:o(?:ut|ff)|in[ ]?\()").search


def may_change_person(body: bytes) -> bool:
    """Return whether `body_changes_person` may be true: nearly all bodies need only this.

    A part of most names is the same in `Password`; other names, and those in capitals, are
    searched for in the beginning alone.
    """
    beginning, last = body[:_BEGINNING_BYTES].lower(), len(body)
    if _may_be_logout(beginning) is not None:
        return True
    if last > _SHORT_BYTES:
        # Behind the last `=` or quotation mark there is no name, but often a text of many KiB.
        within = PASSWORD_WITHIN_BYTES
        last = max(body.rfind(b"=", 0, within), body.rfind(b'"', 0, within))
        if last > _LAST_MARK_MAX:
            return _has_part(body, beginning, _PARTS) or _has_id_token(body)
    backwards = beginning[last + 2 :: -1]
    return _person_before_equals(backwards) is not None or (
        QUOTE in backwards and _password_in_quotes(backwards) is not None
    )


def body_changes_person(body: bytes) -> bool:
    """Return whether the body of a request is a login, a logout, or has another password.

    An application that keeps the id of the session over a login may have any name for it, and all
    forms of an application may go to one target.
    """
    beginning = body[:_BEGINNING_BYTES].lower()
    if _may_be_logout(beginning) is not None and _logout_word(beginning) is not None:
        return True
    if max(map(beginning.find, _ASSERTIONS)) >= 0 or _has_id_token(body):
        return True
    if not _has_part(body, beginning, _PASSWORD_PARTS):
        return False
    backwards = body[:PASSWORD_WITHIN_BYTES].lower()[::-1]
    return _password_before_equals(backwards) is not None or (
        QUOTE in backwards and _password_in_quotes(backwards) is not None
    )


def _has_id_token(body: bytes) -> bool:
    return body.find(_ID_TOKEN, 0, _ID_TOKEN_WITHIN_BYTES) >= 0


def _has_part(body: bytes, beginning: bytes, parts: tuple[bytes, ...]) -> bool:
    return body.find(b"ass", 0, PASSWORD_WITHIN_BYTES) >= 0 or max(map(beginning.find, parts)) >= 0


def _too_many_parts(target: bytes) -> bool:
    if len(target) <= PARAMETERS_MAX:
        return False
    count = target.count
    return (
        count(b"&") + count(b";") + count(b"/") > PARAMETERS_MAX
        or count(b"=") + count(b"?") > PARAMETER_MARKS_MAX
    )


def url_sessions(target: bytes, rules: OwnerRules) -> list[bytes] | None:
    """Find sessions in the path parameters (;jsessionid=...) and in the query (?PHPSESSID=...).

    Returns:
        The parameters that are sessions; None if there are too many parts to read.
    """
    if _too_many_parts(target):
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
    """Return the URL part of a store key: host and target, made coarser by the rules."""
    if rules.ignore_query or rules.ignore_params:
        path, mark, query = target.partition(b"?")
        if rules.ignore_query or not mark:
            target = path
        elif not _too_many_parts(target):
            ignored = rules.param_is_ignored
            kept = [p for p in query.split(b"&") if not ignored(p.partition(b"=")[0])]
            target = path + b"?" + b"&".join(kept) if kept else path
    return target if rules.ignore_host else host.lower() + target


# In HTML, scripts and templates, these end a text, or begin what is executed. A percent sign is one
# that was encoded twice. Tracking parameters have none of them.
_is_markup: Final = re.compile(rb"[<>\"'`\\{%\x00-\x1f]").search


def _ignores_markup(target: bytes, rules: OwnerRules) -> bool:
    """Return whether an ignored parameter may do harm in a page that shows it.

    Pages often have the whole query in their links. The page for one visitor's query is stored for
    all who ask with another one.
    """
    query = target.partition(b"?")[2]
    if not rules.ignore_query:
        ignored = rules.param_is_ignored
        query = b"&".join([p for p in query.split(b"&") if ignored(p.partition(b"=")[0])])
    if PERCENT not in query:
        return _is_markup(query) is not None
    return query.count(b"%") > PARAMETER_ESCAPES_MAX or (
        _is_markup(unquote_to_bytes(query)) is not None
    )


def _asked(host: bytes, target: bytes, url: bytes) -> int:
    exactly = host.lower() + target
    return 0 if exactly == url else hash(exactly)
