"""Writes public pages as files for any web server.

File names come from URLs, which strangers choose. So each name is made anew from the decoded text.
The file cannot lie outside the folder, be hidden, configure a web server, or have a name that a
system does not allow.
"""

import errno
import mimetypes
import os
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from retter.base.hashing import blake2b
from retter.compression.coding import decoded_bytes_max, plain_body
from retter.disk.database import Database
from retter.disk.environment import Damaged
from retter.disk.inspection import Listed, responses_of
from retter.store.record import BODY, WITHDRAWN, Record

# File systems allow 255 octets. A longer name is cut, and a hash keeps it unique.
NAME_BYTES_MAX: Final = 200
_HASH_BYTES: Final = 8

_SAFE: Final = frozenset("-_,;=+@!() '$&.[]{}^")
_HTML: Final = frozenset(("text/html", "application/xhtml+xml"))
_EXTENSIONS: Final = {"application/json": ".json", "text/plain": ".txt", "text/xml": ".xml"}


class Exported(NamedTuple):
    """A page and its file."""

    url: str
    file: str  # relative to the folder
    content_type: str
    age_s: float


class Left(NamedTuple):
    """A page that was left out."""

    url: str
    why: str


def path_of(url: bytes, content_type: str) -> list[str]:
    """Return the names of the folders and of the file for a URL (host and target).

    `/a/` and the page `/a` become `a/index.html`, `/a.css` stays, and a query follows an escaped
    `?`: `list/index%3Fpage=2.html`.
    """
    host, slash, target = url.partition(b"/")
    path, _, query = (slash + target).partition(b"?")
    *folders, last = path.split(b"/")[1:] or [b""]
    mime = content_type.partition(";")[0].strip().lower()
    extension = ".html" if mime in _HTML else _EXTENSIONS.get(mime, "")
    if not last:
        stem, extension = "index", extension or mimetypes.guess_extension(mime) or ""
    elif b"." in last[1:]:
        stem, extension = os.path.splitext(_name(last))
    elif extension == ".html":
        folders, stem = [*folders, last], "index"
    else:
        stem, extension = _name(last), extension or mimetypes.guess_extension(mime) or ""
    if query:
        stem += "%3F" + _name(query)
    names = [_name(host) if host else "site", *map(_name, folders)]
    return [_fitting(name) for name in names] + [_fitting(stem, extension)]


def _name(text: bytes) -> str:
    """Return a part of a URL as a name: decoded, with `%XX` for unsafe characters."""
    raw = unquote_to_bytes(text)
    try:
        decoded = raw.decode()
    except UnicodeDecodeError:
        decoded = "".join([chr(octet) if octet < 128 else f"%{octet:02X}" for octet in raw])
        return _fitted("".join([c if c == "%" else _escaped(c) for c in decoded]))
    return _fitted("".join(map(_escaped, decoded)))


def _escaped(character: str) -> str:
    if character.isalnum() or character in _SAFE:
        return character
    return "".join([f"%{octet:02X}" for octet in character.encode()])


def _fitted(name: str) -> str:
    """Return a name that is not hidden, leads to no other folder, and keeps its extension."""
    if not name:
        return "%"  # the name for the empty segment of `//`; no other text becomes this name
    if name.startswith("."):
        name = "%2E" + name[1:]
    if name.endswith((".", " ")):
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    return name


def _fitting(name: str, extension: str = "") -> str:
    whole = name + extension
    if len(whole.encode()) <= NAME_BYTES_MAX:
        return whole
    if len(extension.encode()) > NAME_BYTES_MAX // 4:
        name, extension = whole, ""
    end = f"~{blake2b(whole.encode(), digest_size=_HASH_BYTES).hexdigest()}{extension}"
    room = NAME_BYTES_MAX - len(end.encode())
    return name.encode()[:room].decode(errors="ignore") + end


def export(database: Database, folder: str, wall: float) -> Iterator[Exported | Left]:
    """Write the public pages into an empty folder; yield the result for each.

    Personal pages are left out: those of a session, and those that came with a cookie. Of the
    variants of a URL, the newest public one is written.

    Raises:
        OSError: The folder cannot be written.
    """
    for packed_key, unpacked in database.slots(0.0, wall):
        if unpacked is None or unpacked.key[:1] != b"*":
            continue
        url = unpacked.key[1:].decode("latin-1")
        fit = [(at, one) for at, one in enumerate(responses_of(unpacked)) if _is_fit(one)]
        if not fit:
            yield Left(url, "no public page with status 200")
            continue
        try:
            read = database.read(packed_key, 0.0, wall, float("inf"))
        except Damaged:
            yield Left(url, "damaged")
            continue
        at, one = fit[0]
        whole = () if read is None or len(read.variants) <= at else read.variants[at]
        if not _is_the_same(whole, one):
            yield Left(url, "changed while it was read")
            continue
        yield _write(folder, one, whole[BODY])


def _is_the_same(whole: Record, listed: Listed) -> bool:
    """Return whether an entry is the listed one, which has a hash instead of the body."""
    without: Record = tuple(listed.response)
    return (
        bool(whole)
        and len(whole[BODY]) == listed.size
        and (whole[:BODY], whole[BODY + 1 :]) == (without[:BODY], without[BODY + 1 :])
    )


def _is_fit(one: Listed) -> bool:
    response = one.response
    is_shown = response.age_max_s != WITHDRAWN and not response.incomplete
    return is_shown and response.status == 200


def _write(folder: str, one: Listed, body: bytes) -> Exported | Left:
    url = one.url.decode("latin-1")
    coding = one.response.content_coding
    plain = plain_body(body, coding, decoded_bytes_max(body))
    if plain is None:
        return Left(url, f"its content coding cannot be decoded: {coding.decode('latin-1')}")
    content_type = _first(one, b"content-type")
    names = path_of(one.url, content_type)
    file = os.path.join(folder, *names)
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "xb") as opened:
            opened.write(plain)
    except (FileExistsError, NotADirectoryError):
        return Left(url, "another page has a file of this name")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # the whole path is too long
            raise
        return Left(url, "its name is too long for a file")
    return Exported(url, "/".join(names), content_type, round(one.age_s, 1))


def _first(one: Listed, name: bytes) -> str:
    values: Iterable[bytes] = (value for field, value in one.fields if field == name)
    return next(iter(values), b"").decode("latin-1")
