"""Applications whose session cookie changes with the answers, and browsers that keep it.

Flask and Django are the real ones, asked without a server. What Laravel and Rails do (the session
is encrypted anew with each answer) does a small application here.
"""

import hashlib
import hmac
import io
import json
from collections.abc import Callable, Iterable
from http.cookies import SimpleCookie
from itertools import count
from typing import Any

import django
import flask
import pytest
from django.conf import settings as django_settings

from tests.support.site import Application, Asked, Got, Site, page

SECRET = "a secret of the application, and of nobody else's"


def by_wsgi(application: Any) -> Application:
    """Return an application that asks a WSGI one."""

    def answer(asked: Asked) -> bytes:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": asked.method,
            "PATH_INFO": asked.path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": asked.target.partition("?")[2],
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.version": (1, 0),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "CONTENT_LENGTH": "0",
            "HTTP_HOST": "shop.example",
        }
        if "cookie" in asked.fields:
            environ["HTTP_COOKIE"] = asked.fields["cookie"]
        status, fields = "", []

        def start(told: str, lines: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            nonlocal status, fields
            status, fields = told, lines
            return lambda data: None

        parts: Iterable[bytes] = application(environ, start)
        body = b"".join(parts).decode()
        cookies = [value for name, value in fields if name.lower() == "set-cookie"]
        others = {
            name: value
            for name, value in fields
            if name.lower() in ("location", "vary", "cache-control")
        }
        return page(body, *cookies, status=status, **others)

    return answer


# What each of the applications does at a path; `session` is a dictionary of the visitor's.


def show(session: Any, method: str, path: str, query: str) -> str:
    """Return the page, or the body of a redirect."""
    if path in ("/login", "/login-by-get"):
        session["user"] = query
        return "welcome"
    if path in ("/logout-by-post", "/leave", "/leave-by-redirect"):
        session.pop("user", None)
        return "bye"
    if path == "/flash":
        session["flash"] = "saved"
        return "saved"
    if path.startswith("/private"):
        return f"private {path} of {session.get('user', 'nobody')}"
    return f"public {path}"


def is_redirect(path: str) -> bool:
    return path in ("/login-by-get", "/leave-by-redirect")


def flask_application(*, permanent: bool = False, changes: bool = False) -> Application:
    """Return a Flask application; its session is a signed cookie."""
    application = flask.Flask("shop")
    application.secret_key = SECRET

    @application.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @application.route("/<path:path>", methods=["GET", "POST"])
    def answer(path: str) -> Any:
        session = flask.session
        session.permanent = permanent
        if changes:
            session["seen"] = session.get("seen", 0) + 1
        query = flask.request.query_string.decode()
        body = show(session, flask.request.method, "/" + path, query)
        return flask.redirect("/private/1") if is_redirect("/" + path) else body

    return by_wsgi(application)


def django_application() -> Application:
    """Return a Django application with signed cookies, saved with every answer."""
    from django.core.handlers.wsgi import WSGIHandler

    if not django_settings.configured:
        django_settings.configure(
            SECRET_KEY=SECRET,
            ALLOWED_HOSTS=["*"],
            DEBUG=False,
            ROOT_URLCONF="tests.support.frameworks",
            MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            SESSION_SAVE_EVERY_REQUEST=True,
            LOGGING_CONFIG=None,
        )
        django.setup()
    return by_wsgi(WSGIHandler())


def _django_view(request: Any, path: str) -> Any:
    from django.http import HttpResponse, HttpResponseRedirect

    body = show(request.session, request.method, "/" + path, request.META["QUERY_STRING"])
    return HttpResponseRedirect("/private/1") if is_redirect("/" + path) else HttpResponse(body)


def _urlpatterns() -> list[Any]:
    from django.urls import re_path

    return [re_path(r"^(?P<path>.*)$", _django_view)]


urlpatterns = _urlpatterns()


class Sealer:
    """Encrypts sessions, each time with another nonce."""

    def __init__(self) -> None:
        self._nonces = count()

    def _stream(self, nonce: bytes, length: int) -> bytes:
        blocks = [
            hashlib.sha256(SECRET.encode() + nonce + bytes([at])).digest()
            for at in range(length // 32 + 1)
        ]
        return b"".join(blocks)[:length]

    def seal(self, session: dict[str, Any]) -> str:
        text = json.dumps(session).encode()
        nonce = hashlib.sha256(b"%d" % next(self._nonces)).digest()[:12]
        sealed = bytes(a ^ b for a, b in zip(text, self._stream(nonce, len(text)), strict=True))
        tag = hmac.digest(SECRET.encode(), nonce + sealed, "sha256")[:16]
        return (nonce + tag + sealed).hex()

    def open(self, value: str) -> dict[str, Any]:
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            return {}
        nonce, tag, sealed = raw[:12], raw[12:28], raw[28:]
        if tag != hmac.digest(SECRET.encode(), nonce + sealed, "sha256")[:16]:
            return {}
        text = bytes(a ^ b for a, b in zip(sealed, self._stream(nonce, len(sealed)), strict=True))
        found: dict[str, Any] = json.loads(text)
        return found


def encrypting_application(name: str = "shop_session") -> Application:
    """Return an application that encrypts the session anew with each answer."""
    sealer = Sealer()

    def answer(asked: Asked) -> bytes:
        session = sealer.open(asked.cookies.get(name, ""))
        body = show(session, asked.method, asked.path, asked.target.partition("?")[2])
        line = f"{name}={sealer.seal(session)}; path=/; httponly"
        if is_redirect(asked.path):
            return page(body, line, status="302 Found", Location="/private/1")
        return page(body, line)

    return answer


class Browser:
    """Keeps the cookies that it is given."""

    def __init__(self, site: Site, cookies: dict[str, str] | None = None) -> None:
        self.site = site
        self.cookies = dict(cookies or {})

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def get(self, target: str, method: str = "GET", *, keep: bool = True) -> Got:
        got = self.site.ask(target, cookie=self.cookie, method=method)
        if keep:
            self.take(got)
        return got

    def post(self, target: str) -> Got:
        return self.get(target, "POST")

    def take(self, got: Got) -> None:
        """Keep the cookies of an answer."""
        head = got.raw.partition(b"\r\n\r\n")[0].decode("latin-1")
        for line in head.split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "set-cookie":
                for one, morsel in SimpleCookie(value).items():
                    self.cookies[one] = morsel.coded_value


@pytest.fixture
def each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass for the frameworks with each signature."""
    import django.core.signing
    import itsdangerous.timed

    seconds = count(1_800_000_000)

    class Clock:
        @staticmethod
        def time() -> float:
            return float(next(seconds))

    monkeypatch.setattr(itsdangerous.timed, "time", Clock)
    monkeypatch.setattr(django.core.signing, "time", Clock)
