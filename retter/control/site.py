"""The URLs of a site: from its sitemap, or from the links of its pages. Pure functions.

https://www.sitemaps.org/protocol.html
"""

import zlib
from collections import deque
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urldefrag, urljoin, urlsplit
from xml.parsers import expat

DOCUMENT_BYTES_MAX: Final = 10 << 20  # a sitemap has 50,000 URLs at most, of about 100 bytes
URL_LENGTH_MAX: Final = 2048  # as in a sitemap
# Of elements within each other. A URL stands at 3, with what extends the protocol some more.
DEPTH_MAX: Final = 32
KNOWN_MAX: Final = 50_000  # URLs that are remembered; further ones are ignored

# Segments of paths that change something. A link to such a page is not followed.
_ACTIONS: Final = frozenset({"logout", "logoff", "signout", "sign-out", "sign_out", "delete"})


class NotASitemap(ValueError):
    """The document is no sitemap. The message is one line."""


class Walk:
    """URLs to visit, first in, first out, each once, all of one host.

    Args:
        start: The URL to begin with; its host is the host of all.
        most: Pages that are visited at most.
    """

    def __init__(self, start: str, most: int) -> None:
        self._host = urlsplit(start).netloc.lower()
        self._known = {start}
        self._next = deque([start])
        self.left = most
        self.elsewhere = 0  # number of URLs of other hosts, which are not visited

    def add(self, url: str) -> None:
        """Remember a URL to visit, unless it is known, or of another host."""
        try:
            clean = urldefrag(url).url
            parts = urlsplit(clean)
        except ValueError:  # no URL at all, such as http://[
            return
        if parts.scheme not in ("http", "https") or len(clean) > URL_LENGTH_MAX:
            return
        if parts.netloc.lower() != self._host:
            self.elsewhere += 1
        elif clean not in self._known and len(self._known) < KNOWN_MAX:
            self._known.add(clean)
            self._next.append(clean)

    def next(self) -> str | None:
        """Return the next URL; None if all, or `most`, have been visited."""
        if not self.left or not self._next:
            return None
        self.left -= 1
        return self._next.popleft()

    @property
    def waiting(self) -> int:
        """The number of known URLs that are still to be visited."""
        return min(self.left, len(self._next))


def unpacked(body: bytes) -> bytes:
    """Return a body, decompressed if it is gzip. At most DOCUMENT_BYTES_MAX are returned."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompressobj(31).decompress(body, DOCUMENT_BYTES_MAX)
    except zlib.error:
        return b""


def is_sitemap(body: bytes) -> bool:
    """Return whether a document looks like a sitemap, or an index of sitemaps."""
    start = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"<") and (b"<urlset" in start or b"<sitemapindex" in start)


def locations(body: bytes) -> list[str]:
    """Return the URLs of a sitemap or of an index of sitemaps.

    A document type is refused: entities can make a small document large.

    Raises:
        NotASitemap: It is not well formed, or has a document type.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    found: list[str] = []
    path: list[str] = []

    def start(name: str, _attributes: dict[str, str]) -> None:
        if len(path) == DEPTH_MAX:
            raise NotASitemap("its elements are nested too deeply")
        path.append(name.rpartition(" ")[2])
        if path[1:] in (["url", "loc"], ["sitemap", "loc"]):
            found.append("")

    def text(data: str) -> None:
        if path[1:] in (["url", "loc"], ["sitemap", "loc"]) and len(found[-1]) <= URL_LENGTH_MAX:
            found[-1] += data

    def refuse(*_: object) -> None:
        raise NotASitemap("it has a document type, which no sitemap needs")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: path.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise NotASitemap(str(error)) from None
    return [url.strip() for url in found if url.strip()]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            return
        fields = dict(attrs)
        relation = (fields.get("rel") or "").lower().split()
        if "nofollow" not in relation and (href := fields.get("href")):
            self.found.append(href)


def links(page: str, url: str) -> list[str]:
    """Return the links of an HTML page as URLs.

    Some are left out: links with a query, because a site can have any number of them, links with
    rel=nofollow, and paths that name an action.
    """
    parser = _Links()
    parser.feed(page)
    return [whole for href in parser.found if _is_page(whole := joined(url, href.strip()))]


def joined(url: str, href: str) -> str:
    """Return the URL that a reference on a page stands for, "" if it is none."""
    try:
        return urljoin(url, href)
    except ValueError:  # not a valid URL, such as http://[
        return ""


def _is_page(url: str) -> bool:
    parts = urlsplit(url)
    return bool(url) and not parts.query and _ACTIONS.isdisjoint(parts.path.lower().split("/"))
