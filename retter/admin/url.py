"""URLs as operators write them, and the request heads that clients would make of them."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, urlsplit

from retter.admin.message import AdminError

# As a browser leaves them in a path and a query; what is percent-encoded stays as it is.
_UNRESERVED_ELSEWHERE = "%/:=&?~+!$,;'@()*[]|"

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

# What is a host without a scheme before it: with a port, or with a dot and a path. `page`,
# `products/7` and `index.html` are paths whose slash was left out, or hosts; who knows.
_HOST_FIRST: Final = re.compile(r"localhost(?=/|$)|[^/?]+:[0-9]+(?=/|$)|[^/?]*[.\]][^/?]*/")


def split_url(url: str) -> tuple[str, bytes, bytes]:
    """Return scheme, host (with its port) and target; without a host, that is empty.

    `http://shop.example/a?b`, `shop.example/a?b` and `/a?b` are all understood.

    Raises:
        AdminError: 400.
    """
    text = url.strip()
    if not text or any(character <= " " or character == "\x7f" for character in text):
        raise AdminError(400, "the URL is empty, or has white space in it")
    scheme = "http"
    if not text.startswith("/"):
        if "://" not in text.partition("?")[0]:
            if not _HOST_FIRST.match(text):
                raise AdminError(
                    400, "it is not clear whether the URL has a host: write /path (of any host), "
                    "or http://host/path"
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


def head_bytes(
    method: str, host: bytes, target: bytes, fields: Iterable[tuple[str, str]]
) -> bytes:
    """Return the request head that a client would send.

    Raises:
        AdminError: 400, a field would be more than one.
    """
    lines = [f"{name}: {value}" for name, value in fields]
    text = f"{method}{''.join(lines)}"
    if any(ord(character) < 32 and character != "\t" for character in text):
        raise AdminError(400, "a method or a header has a line break or another control byte")
    try:
        written = "".join([f"{line}\r\n" for line in lines]).encode("latin-1")
        verb = method.encode("ascii")
    except UnicodeEncodeError:
        raise AdminError(400, "a method or a header has characters that no header has") from None
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (verb, target, host, written)
