"""Kinds of settings: how their values are read, checked and shown.

Pure functions. Each raises ValueError with a sentence for the operator.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, TypeGuard, cast

from retter.compression import compressors
from retter.config import units
from retter.config.units import shown
from retter.http.content_coding import CODINGS

CODING_NAMES: Final = tuple([coding.decode() for coding in CODINGS])
_PACKAGES: Final = {"zstd": "zstandard", "br": "brotli"}  # gzip needs none

# A shorter text would match many pages; each text is searched in small responses that have shrunk.
FAILURE_TEXT_BYTES_MIN: Final = 8
FAILURE_TEXT_BYTES_MAX: Final = 200
FAILURE_TEXTS_MAX: Final = 64


TrustedProxy = IPv4Network | IPv6Network | str
"""A network whose forwarding fields are believed, or the word `unix:` for every Unix socket."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. `parse` and `accept` raise ValueError."""

    metavar: str
    parse: Callable[[str], object]  # from a flag, a variable, or a string in the file
    accept: Callable[[object], object]  # from Python, or another type in the file; idempotent
    show: Callable[[Any], str]  # the text that `parse` would read
    many: bool = False  # a tuple: its flag may be repeated
    spaces_split_variable: bool = False  # many in one variable are separated by white space
    bounds: tuple[float, float] = (0, 0)  # of a number: the smallest and the largest one
    accept_in_file: Callable[[object], object] | None = None  # if a file may hold less than Python

    def read(self, value: object) -> object:
        """Return the value of a key of the file. Raises ValueError."""
        if isinstance(value, str):
            return self.parse(value)
        return (self.accept_in_file or self.accept)(value)


def duration(minimum: float = 0.0) -> Kind:
    """Seconds as a float; minimum 0 allows 0."""

    def check(seconds: float) -> float:
        if seconds < minimum:
            raise ValueError(
                f"{units.format_duration(seconds)} is too short; "
                f"at least {units.format_duration(minimum)}"
            )
        return seconds

    def accept(value: object) -> float:
        if not _is_number(value) or not 0 <= value <= units.DURATION_S_MAX:
            raise ValueError(f"{shown(value)} is not a duration in seconds from 0 to a year")
        return check(float(value))

    return Kind(
        "TIME",
        lambda text: check(units.parse_duration(text)),
        accept,
        units.format_duration,
        bounds=(minimum, units.DURATION_S_MAX),
    )


def size(minimum: int = 0) -> Kind:
    """Octets as an int; minimum 0 allows 0."""

    def check(octets: int) -> int:
        if octets < minimum:
            raise ValueError(
                f"{units.format_size(octets)} is too small; at least {units.format_size(minimum)}"
            )
        return octets

    def accept(value: object) -> int:
        if not _is_int(value) or not 0 <= value <= units.SIZE_BYTES_MAX:
            raise ValueError(f"{shown(value)} is not a number of bytes from 0 to 1 PiB")
        return check(value)

    return Kind(
        "SIZE",
        lambda text: check(units.parse_size(text)),
        accept,
        units.format_size,
        bounds=(minimum, units.SIZE_BYTES_MAX),
    )


def count(minimum: int = 0, maximum: int = 1_000_000_000) -> Kind:
    """An int within these bounds."""

    def accept(value: object) -> int:
        if not _is_int(value) or not minimum <= value <= maximum:
            raise ValueError(f"{shown(value)} is not a whole number from {minimum} to {maximum}")
        return value

    def parse(text: str) -> int:
        cleaned = text.strip()
        digits = cleaned.isascii() and cleaned.isdigit() and len(cleaned) <= 18
        return accept(int(cleaned) if digits else text)

    return Kind("N", parse, accept, str, bounds=(minimum, maximum))


def processes(maximum: int) -> Kind:
    """A number of processes. `auto` becomes 0, which only Python may write."""

    def accept_in_file(value: object) -> int:
        if value == "auto":
            return 0
        if not _is_int(value) or not 1 <= value <= maximum:
            raise ValueError(
                f"{shown(value)} is neither auto nor a whole number from 1 to {maximum}"
            )
        return value

    def accept(value: object) -> int:
        return 0 if _is_int(value) and value == 0 else accept_in_file(value)

    def parse(text: str) -> int:
        cleaned = text.strip().lower()
        digits = cleaned.isascii() and cleaned.isdigit() and len(cleaned) <= 18
        return accept_in_file(int(cleaned) or text if digits else cleaned)

    return Kind(
        "N|auto",
        parse,
        accept,
        lambda value: str(value or "auto"),
        bounds=(1, maximum),
        accept_in_file=accept_in_file,
    )


def share() -> Kind:
    """A float above 0 and at most 1."""

    def accept(value: object) -> float:
        if not _is_number(value) or not 0 < value <= 1:
            raise ValueError(f"{shown(value)} is not a share above 0 and at most 1, as 0.5 or 50%")
        return float(value)

    return Kind("SHARE", lambda text: accept(units.parse_ratio(text)), accept, repr)


def switch() -> Kind:
    """True or false."""

    def accept(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{shown(value)} is neither true nor false")
        return value

    return Kind("", units.parse_bool, accept, lambda value: "true" if value else "false")


def word(*words: str) -> Kind:
    """One of these words, in lower case."""

    def accept(value: object) -> str:
        if not isinstance(value, str) or value.strip().lower() not in words:
            raise ValueError(f"{shown(value)} is not one of {', '.join(words)}")
        return value.strip().lower()

    return Kind("|".join(words), accept, accept, str)


def text(metavar: str, check: Callable[[str], object] | None = None) -> Kind:
    """A str, kept as written; empty is unset and never checked."""

    def accept(value: object) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(f"{shown(value)} is not text")
        if value and check is not None:
            check(value)
        return value

    return Kind(metavar, accept, accept, str)


def secret() -> Kind:
    """A str that is never shown in a message or a table."""

    def accept(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("it is not text")
        if value and not _SECRET.fullmatch(value):
            raise ValueError(
                f"it must have {SECRET_LENGTH_MIN} to 256 characters, all of them visible ASCII"
            )
        return value

    return Kind("SECRET", accept, accept, lambda value: "(hidden)" if value else "")


def server_url() -> Kind:
    """The URL of a Redis or Valkey; its password is never shown."""

    def accept(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("it is not text")
        return units.check_server_url(value) if value else ""

    return Kind("URL", accept, accept, units.without_password)


def list_of(metavar: str, item: Callable[[object], object], separator: str | None = ",") -> Kind:
    """A tuple. With a separator, one text may hold several items, and the empty text holds none."""

    def parse(text: str) -> tuple[object, ...]:
        if separator is None:
            return (item(text),)
        return tuple([item(part.strip()) for part in text.split(separator) if part.strip()])

    def accept(value: object) -> tuple[object, ...]:
        if isinstance(value, str):
            return parse(value)
        if not isinstance(value, tuple | list):
            raise ValueError(f"{shown(value)} is not a list")
        return tuple([item(part) for part in cast("Sequence[object]", value)])

    def show(value: tuple[object, ...]) -> str:
        return (separator or " ").join([str(part) for part in value])

    return Kind(metavar, parse, accept, show, many=True, spaces_split_variable=separator is None)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# Items of lists, and texts with a form

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, has "*"
_PARAMETER: Final = re.compile(r"[^&=#\x00-\x20\x7f]+")
SECRET_LENGTH_MIN: Final = 16  # a shorter one can be guessed over a network
_SECRET: Final = re.compile(f"[!-~]{{{SECRET_LENGTH_MIN},256}}")
_NETWORK_FORMS: Final = "write 10.0.0.0/8, 192.0.2.1, 2001:db8::/32 or unix:"
_CREDENTIAL_FIELDS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})


def cookie_pattern(value: object) -> str:
    """Return the name of a cookie, in which `*` is any text."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a cookie's name; write SESSID or SESS*")
    return value


def ignored_cookie_pattern(value: object) -> str:
    """Return the pattern of a cookie to ignore; it must not match every name."""
    pattern = cookie_pattern(value)
    if not pattern.strip("*"):
        raise ValueError(f"{shown(value)} would ignore every cookie and so mix people's pages")
    return pattern


def parameter_pattern(value: object) -> str:
    """Return the name of a query parameter, in which `*` is any text."""
    if not isinstance(value, str) or not _PARAMETER.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a parameter's name; write fbclid or utm_*")
    return value


def neutral_field(value: object) -> str:
    """Return the lower-case name of a request field; it must not identify people."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value) or "*" in value:
        raise ValueError(f"{shown(value)} is not a field name; write X-Device-Class")
    if value.lower() in _CREDENTIAL_FIELDS:
        raise ValueError(f"{shown(value)} identifies people; ignoring it would mix their pages")
    return value.lower()


def failure_status(value: object) -> int:
    """Return a status from 400 to 599."""
    if isinstance(value, str) and re.fullmatch("[0-9]{3}", value):
        value = int(value)
    if not _is_int(value) or not 400 <= value <= 599:
        raise ValueError(f"{shown(value)} is not an error status from 400 to 599")
    return value


def trusted_proxy(value: object) -> TrustedProxy:
    """Return a network, or `unix:` for all Unix sockets."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if value == "unix:":
        return "unix:"
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a network; {_NETWORK_FORMS}")
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{shown(value)} is not a network; {_NETWORK_FORMS}") from None
    if ip_network(value.partition("/")[0]).network_address != network.network_address:
        raise ValueError(f"{shown(value)} has bits set below its prefix; write {network}")
    return network


def path_pattern(value: object) -> str:
    """Return a path, in which `*` is any text."""
    if not isinstance(value, str) or not value.startswith("/") or "?" in value:
        raise ValueError(f"{shown(value)} is not a path; write /events or /api/*")
    return value


def target_pattern(value: object) -> str:
    """Return a path, or a path and a query parameter, in which `*` is any text."""
    if not isinstance(value, str) or not value.startswith("/") or value.count("?") > 1:
        raise ValueError(f"{shown(value)} is not a path; write /checkout/* or /*?add-to-cart=*")
    return value


def check_admin_address(value: str) -> None:
    """Check an address of the admin listener."""
    if value not in ("auto", "off"):
        address = units.parse_listen(value)
        if address.tls or address.proxy:
            raise ValueError(f"{shown(value)}: the admin listener has no options")


_MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def media_type_pattern(value: object) -> str:
    """Return a media type in lower case, in which `*` is any text."""
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a media type; write text/* or application/json")
    return value.lower()


def coding(value: object) -> str:
    """Return a content coding that is installed, or `auto`."""
    if not isinstance(value, str) or value.lower() not in ("auto", *CODING_NAMES):
        raise ValueError(f"{shown(value)} is not one of auto, off, {', '.join(CODING_NAMES)}")
    coding = value.lower()
    if coding != "auto" and not compressors.available(coding.encode()):
        package = _PACKAGES[coding]
        raise ValueError(f"{coding} needs a package that is not installed: pip install {package}")
    return coding


def codings() -> Kind:
    """Content codings, best first; off is the empty tuple."""
    listed = list_of("CODINGS", coding)

    def parse(text: str) -> object:
        return () if text.strip().lower() in ("off", "false", "no") else listed.parse(text)

    def accept(value: object) -> object:
        found = parse(value) if isinstance(value, str) else listed.accept(value)
        if found != ("auto",) and "auto" in cast("tuple[str, ...]", found):
            raise ValueError("auto means all codings and cannot be combined with others")
        return found

    def show(value: tuple[object, ...]) -> str:
        return listed.show(value) or "off"

    return Kind("CODINGS", lambda text: accept(text), accept, show, many=True)


def failure_text(value: object) -> str:
    """Return a text that marks an error page, or `auto`."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text")
    if value.lower() == "auto":
        return "auto"
    if not FAILURE_TEXT_BYTES_MIN <= len(value.encode()) <= FAILURE_TEXT_BYTES_MAX:
        raise ValueError(
            f"{shown(value)} is neither auto nor off nor a text of {FAILURE_TEXT_BYTES_MIN} to "
            f"{FAILURE_TEXT_BYTES_MAX} bytes"
        )
    return value


def failure_texts() -> Kind:
    """Texts of error pages; off is the empty tuple."""
    listed = list_of("TEXTS", failure_text)

    def accept(value: object) -> object:
        if isinstance(value, str) and value.strip().lower() in ("off", "false", "no"):
            return ()
        found = cast("tuple[str, ...]", listed.accept(value))
        if len(found) > FAILURE_TEXTS_MAX:
            raise ValueError(f"{len(found)} texts are too many; give at most {FAILURE_TEXTS_MAX}")
        return found

    def show(value: tuple[object, ...]) -> str:
        return listed.show(value) or "off"

    return Kind("TEXTS", accept, accept, show, many=True)


CRAWLER_WORDS_MAX: Final = 256
CRAWLER_WORD_LENGTH_MIN: Final = 3  # a shorter one occurs in many User-Agent fields
CRAWLER_WORD_LENGTH_MAX: Final = 64


def _crawler_word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text")
    found = value.strip().lower()
    if not CRAWLER_WORD_LENGTH_MIN <= len(found) <= CRAWLER_WORD_LENGTH_MAX or not found.isascii():
        raise ValueError(
            f"{shown(value)} is neither auto nor off nor a word of {CRAWLER_WORD_LENGTH_MIN} to "
            f"{CRAWLER_WORD_LENGTH_MAX} ASCII characters"
        )
    return found


def crawler_words() -> Kind:
    """Words of User-Agent; off is the empty tuple."""
    listed = list_of("WORDS", _crawler_word)

    def accept(value: object) -> object:
        if isinstance(value, str) and value.strip().lower() in ("off", "false", "no"):
            return ()
        found = cast("tuple[str, ...]", listed.accept(value))
        if len(found) > CRAWLER_WORDS_MAX:
            raise ValueError(f"{len(found)} words are too many; give at most {CRAWLER_WORDS_MAX}")
        return found

    def show(value: tuple[object, ...]) -> str:
        return listed.show(value) or "off"

    return Kind("WORDS", accept, accept, show, many=True)


# With fewer bits, all addresses of a large provider would be one client.
CLIENT_PREFIX_MIN: Final = (8, 16)
CLIENT_PREFIX_MAX: Final = (32, 128)


def client_prefix() -> Kind:
    """Bits of IPv4 and of IPv6 addresses."""

    def accept(value: object) -> object:
        whole = shown(value)
        if isinstance(value, str):
            parts: list[object] = [
                int(part) if part.strip().isascii() and part.strip().isdigit() else part
                for part in value.split(",")[:3]
            ]
        elif isinstance(value, tuple | list):
            parts = list(cast("Sequence[object]", value))
        else:
            parts = [value]
        bits = [part for part in parts if _is_int(part)]
        if len(parts) != 2 or len(bits) != 2:
            raise ValueError(f"{whole} is not two numbers of bits, as 32,64")
        for given, lowest, highest in zip(bits, CLIENT_PREFIX_MIN, CLIENT_PREFIX_MAX, strict=True):
            if not lowest <= given <= highest:
                raise ValueError(
                    f"{given} is not from {lowest} to {highest}; first IPv4 (8 to 32), then IPv6 "
                    "(16 to 128)"
                )
        return bits[0], bits[1]

    def show(value: tuple[int, int]) -> str:
        return f"{value[0]},{value[1]}"

    return Kind("BITS,BITS", accept, accept, show)


def listen_item(value: object) -> str:
    """Return the text of an address to listen on."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not an address; write {units.LISTEN_FORMS}")
    units.parse_listen(value)
    return value.strip()


def file_item(value: object) -> str:
    """Return the name of a file."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{shown(value)} is not a file's name")
    return value
