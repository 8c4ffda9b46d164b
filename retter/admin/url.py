"""URLs as operators write them, and the request heads that clients would send for them."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, urlsplit

from retter.admin.message import AdminError

# Characters that a browser does not encode in a path and a query. Existing encoding stays.
_UNRESERVED_ELSEWHERE = "%/:=&?~+!$,;'@()*[]|"

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

_NOT_IN_URLS: Final = re.compile(r"[\x00-\x20\x7f]")
_NOT_IN_FIELDS: Final = re.compile(r"[\x00-\x08\x0a-\x1f]")


def _begins_with_host(text: str) -> bool:
    """Return whether a URL without a scheme certainly has a host: a port, or a dot and a path.

    `page`, `products/7` and `index.html` may be hosts, or paths without their first slash.
    """
    authority = text.partition("/")[0].partition("?")[0]
    following = text[len(authority) : len(authority) + 1]
    if following == "?":
        return False
    host, _, port = authority.rpartition(":")
    if authority == "localhost" or (host and port.isascii() and port.isdigit()):
        return True
    return following == "/" and ("." in authority or "]" in authority)


def split_url(url: str) -> tuple[str, bytes, bytes]:
    """Return scheme, host (with its port) and target; without a host, that is empty.

    `http://shop.example/a?b`, `shop.example/a?b` and `/a?b` are all understood.

    Raises:
        AdminError: 400.
    """
    text = url.strip()
    if not text or _NOT_IN_URLS.search(text):
        raise AdminError(400, "the URL is empty, or has white space in it")
    scheme = "http"
    if not text.startswith("/"):
        if "://" not in text.partition("?")[0]:
            if not _begins_with_host(text):
                raise AdminError(
                    400,
                    "it is not clear whether the URL has a host: write /path (of any host), "
                    "or http://host/path",
                )
            text = f"http://{text}"
        try:
            parts = urlsplit(text)
        except ValueError:
            raise AdminError(400, "the URL is not understood") from None
        scheme = parts.scheme.lower()
        if scheme not in _DEFAULT_PORTS or not parts.netloc:
            raise AdminError(400, "the URL is neither http://..., https://... nor /...")
        host = parts.netloc.rpartition("@")[2].removesuffix(_DEFAULT_PORTS[scheme])
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    else:
        host, target = "", text.partition("#")[0]
    try:
        return scheme, host.encode("ascii"), quote(target, _UNRESERVED_ELSEWHERE).encode("ascii")
    except UnicodeEncodeError:
        raise AdminError(400, "write the host's name in ASCII (xn--...)") from None


def head_bytes(method: str, host: bytes, target: bytes, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the request head that a client would send.

    Raises:
        AdminError: 400: a field contains a line break, for example.
    """
    lines = [f"{name}: {value}" for name, value in fields]
    text = f"{method}{''.join(lines)}"
    if _NOT_IN_FIELDS.search(text):
        raise AdminError(400, "a method or a header has a line break or another control byte")
    try:
        written = "".join([f"{line}\r\n" for line in lines]).encode("latin-1")
        verb = method.encode("ascii")
    except UnicodeEncodeError:
        raise AdminError(
            400, "a method or a header has characters that are not allowed in a header"
        ) from None
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (verb, target, host, written)
