"""The notations of settings: sizes, durations, switches, ratios and addresses.

Only text is processed: nothing here opens a file, resolves a name or knows which setting it reads.
Every parser raises ValueError with one sentence that shows the value and says what would be right.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

SHOWN_CHARACTERS_MAX: Final = 80  # of a wrong value: the message stays one readable line

# One year: a longer wait is a mistake in the unit. So timers cannot overflow.
DURATION_S_MAX: Final = 366 * 24 * 3600.0
SIZE_BYTES_MAX: Final = 1 << 50  # 1 PiB, for the same reason
UNIX_PATH_BYTES_MAX: Final = 107  # sun_path of Linux, 108, less the final NUL (unix(7))

DURATION_UNITS: Final[dict[str, float]] = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
_PER_SECOND: Final[dict[str, float]] = {"ns": 1e9, "us": 1e6, "µs": 1e6, "μs": 1e6, "ms": 1e3}
_DURATION_PART: Final = re.compile(
    r"([0-9]++(?:\.[0-9]*+)?(?:e[+-]?[0-9]++)?|\.[0-9]++)\s*+([a-zµμ]++)\s*+"
)
_NUMBER: Final = re.compile(r"(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:e[+-]?[0-9]++)?")

# A single letter is a power of two, as in nginx and Apache; kB, MB and GB are powers of ten (SI).
SIZE_UNITS: Final[dict[str, int]] = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "ki": 1 << 10,
    "kib": 1 << 10,
    "kb": 10**3,
    "m": 1 << 20,
    "mi": 1 << 20,
    "mib": 1 << 20,
    "mb": 10**6,
    "g": 1 << 30,
    "gi": 1 << 30,
    "gib": 1 << 30,
    "gb": 10**9,
}
_SIZE: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?\s*([a-z]*)")

TRUE_WORDS: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
FALSE_WORDS: Final = frozenset({"false", "f", "no", "n", "off", "0"})

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")

LISTEN_FORMS: Final = ":80, 127.0.0.1:8089, [::1]:8089 or unix:/run/retter.sock"
# Words after an address to listen on, `:80,proxy`; each is a field of ListenAddress.
LISTEN_OPTIONS: Final = ("proxy", "tls")
UPSTREAM_FORMS: Final = ":8080, app:8080, https://app, [::1]:8080 or unix:/run/app.sock"


def shown(value: object) -> str:
    """Return a value as an error message shows it: quoted, on one line, and not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    if len(text) > SHOWN_CHARACTERS_MAX:
        return text[: SHOWN_CHARACTERS_MAX - 3] + "..."
    return text


# Durations


def parse_duration(text: str) -> float:
    """Read a duration and return seconds.

    `1.5s`, `200ms`, `2m`, `24h`, `1h30m`, `15 seconds`; a plain number is seconds. Raises
    ValueError for anything else, a sign included.
    """
    cleaned = text.strip().lower()
    if _NUMBER.fullmatch(cleaned):
        return _within_a_year(float(cleaned), text)
    seconds, position = 0.0, 0
    while position < len(cleaned):
        part = _DURATION_PART.match(cleaned, position)
        if part is None or part[2] not in DURATION_UNITS:
            break
        seconds += _in_seconds(float(part[1]), part[2])
        position = part.end()
    if position == 0 or position < len(cleaned):
        raise ValueError(
            f"{shown(text)} is not a duration; write 1.5s, 200ms, 2m, 24h or plain seconds"
        )
    return _within_a_year(seconds, text)


def _in_seconds(number: float, unit: str) -> float:
    # Dividing by a whole number rounds once, so that 200ms is exactly 0.2.
    if unit in _PER_SECOND:
        return number / _PER_SECOND[unit]
    return number * DURATION_UNITS[unit]


def _within_a_year(seconds: float, text: str) -> float:
    if seconds > DURATION_S_MAX:
        raise ValueError(f"{shown(text)} is longer than a year")
    return seconds


def format_duration(seconds: float) -> str:
    """Write seconds in the largest unit that `parse_duration` reads back as the same number."""
    if seconds == 0:
        return "0"
    for unit, length in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    milliseconds = f"{seconds * 1000:g}ms"
    if seconds < 1 and parse_duration(milliseconds) == seconds:
        return milliseconds
    return f"{seconds!r}s"


# Sizes


def parse_size(text: str) -> int:
    """Read a size and return octets.

    `64MiB`, `64m` and `65536k` are powers of two, `64MB` is a power of ten, a plain number is
    octets. Raises ValueError for anything else.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[3] not in SIZE_UNITS:
        raise ValueError(f"{shown(text)} is not a size; write 64MiB, 64MB, 64k or plain bytes")
    digits = match[2] or ""
    scale: int = 10 ** len(digits)
    octets, rest = divmod(int(match[1] + digits) * SIZE_UNITS[match[3]], scale)
    if rest:
        raise ValueError(f"{shown(text)} is not a whole number of bytes")
    if octets > SIZE_BYTES_MAX:
        raise ValueError(f"{shown(text)} is larger than 1 PiB")
    return octets


def format_size(octets: int) -> str:
    """Write octets in the largest unit that `parse_size` reads back as the same number."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if octets and octets % factor == 0:
            return f"{octets // factor}{unit}"
    return str(octets)


# Switches and ratios


def parse_bool(text: str) -> bool:
    """Read true or false; yes/no, on/off and 1/0 do as well. Raises ValueError."""
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(f"{shown(text)} is neither true nor false")


def parse_ratio(text: str) -> float:
    """Read a share, `0.5` or `50%`, and return it as a number. Raises ValueError."""
    number, percent, rest = text.strip().lower().partition("%")
    number = number.rstrip()
    if rest or not _NUMBER.fullmatch(number):
        raise ValueError(f"{shown(text)} is not a share; write 0.5 or 50%")
    return float(number) / 100 if percent else float(number)


# Addresses


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address for clients: a TCP port or the path of a Unix socket, and its protocol."""

    kind: Literal["tcp", "unix"]
    host: str = ""  # a name or an address without brackets; "" is every interface, IPv4 and IPv6
    port: int = 0  # 0 lets the system choose a free one
    path: str = ""  # of a Unix socket
    proxy: bool = False  # each connection begins with a PROXY protocol header
    tls: bool = False  # TLS, after the PROXY header if there is one

    def __str__(self) -> str:
        options = [option for option in LISTEN_OPTIONS if getattr(self, option)]
        return ",".join([_address_text(self.kind, self.host, self.port, self.path), *options])


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """The address of the application: a TCP port, or the path of a Unix socket."""

    kind: Literal["tcp", "unix"]
    host: str  # a name or an address without brackets; "" for a Unix socket
    port: int  # 1 to 65535; 0 for a Unix socket
    path: str  # of a Unix socket, else ""
    authority: bytes  # the Host field for requests without one (RFC 9112 section 3.2)
    tls: bool = False  # https

    def __str__(self) -> str:
        text = _address_text(self.kind, self.host, self.port, self.path)
        return f"https://{text}" if self.tls else text


def _address_text(kind: str, host: str, port: int, path: str) -> str:
    if kind == "unix":
        return f"unix:{path}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listen(text: str) -> ListenAddress:
    """Read an address to listen on: `:80`, `host:80`, `[::1]:80` or `unix:PATH`, with options.

    `:80` and `*:80` are every interface, IPv4 and IPv6; port 0 lets the system choose. After
    the first comma come LISTEN_OPTIONS, so the path of a socket has no comma. Raises ValueError.
    """
    cleaned, *words = [part.strip() for part in text.split(",")]
    options = _listen_options(words, text)
    proxy, tls = "proxy" in options, "tls" in options
    if cleaned.startswith("unix:"):
        return ListenAddress("unix", path=_unix_path(cleaned, text), proxy=proxy, tls=tls)
    if "://" in cleaned:
        raise ValueError(f"{shown(text)} is a URL; write where to listen as {LISTEN_FORMS}")
    if cleaned.startswith("*:"):
        cleaned = cleaned[1:]
    host, port = _host_and_port(cleaned, text, LISTEN_FORMS)
    return ListenAddress("tcp", host, port, proxy=proxy, tls=tls)


def _listen_options(words: list[str], text: str) -> frozenset[str]:
    for word in words:
        if word not in LISTEN_OPTIONS:
            raise ValueError(
                f"{shown(text)}: {shown(word)} is not an option of an address; "
                f"after a comma comes {' or '.join(LISTEN_OPTIONS)}"
            )
    options = frozenset(words)
    if len(words) > len(options):
        raise ValueError(f"{shown(text)}: an option is given twice")
    return options


_EVERYWHERE: Final = ("", "0.0.0.0", "::")
_HERE: Final = ("localhost", "127.0.0.1", "::1")


def reaches(upstream: UpstreamAddress, listen: ListenAddress) -> bool:
    """Whether a connection to `upstream` reaches the listener at `listen`, judging by the names."""
    if (upstream.kind, upstream.port, upstream.path) != (listen.kind, listen.port, listen.path):
        return False
    if listen.host in _EVERYWHERE:
        return upstream.host in (*_EVERYWHERE, *_HERE)
    names = (upstream.host, listen.host)
    # The name stands for both of its addresses.
    return names[0] == names[1] or ("localhost" in names and set(names) <= set(_HERE))


def overlap(one: ListenAddress, other: ListenAddress) -> bool:
    """Whether the second of two addresses certainly cannot be listened on, judging by the names."""
    if one.kind != other.kind or one.port != other.port or one.path != other.path:
        return False
    if one.kind == "unix":
        return True
    if not one.port:
        return False  # each gets a free port of its own
    hosts = [_plain_host(one.host), _plain_host(other.host)]
    if hosts[0] == hosts[1] or "" in hosts:
        return True
    versions = [4 if _is_address(socket.AF_INET, host) else 6 if ":" in host else 0
                for host in hosts]  # fmt: skip
    return versions[0] == versions[1] != 0 and not {"0.0.0.0", "::"}.isdisjoint(hosts)


def _plain_host(host: str) -> str:
    """Return a host in the form in which equal ones are equal."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()


def parse_upstream(text: str) -> UpstreamAddress:
    """Read the application's address: `:8080`, `host:8080`, `https://host`, `unix:PATH`.

    `:8080` is this machine: localhost, which is 127.0.0.1 and ::1. A URL may name no path but `/`,
    since the target of a request is never rewritten. Raises ValueError.
    """
    cleaned = text.strip()
    if not cleaned:
        raise ValueError(f"the application's address is missing; write {UPSTREAM_FORMS}")
    if cleaned.startswith("unix:"):
        return UpstreamAddress("unix", "", 0, _unix_path(cleaned, text), b"localhost")
    scheme, separator, rest = cleaned.partition("://")
    if separator:
        cleaned = _authority_of_url(scheme.lower(), rest, text)
    host, port = _host_and_port(cleaned, text, UPSTREAM_FORMS)
    if port == 0:
        raise ValueError(f"{shown(text)}: port 0 cannot be connected to")
    host = host or "localhost"
    tls = scheme.lower() == "https"
    return UpstreamAddress("tcp", host, port, "", _authority(host, port, tls), tls)


def _authority(host: str, port: int, tls: bool) -> bytes:
    name = host.partition("%")[0]  # a zone means something on this machine only (RFC 6874)
    name = f"[{name}]" if ":" in name else name
    return (name if port == (443 if tls else 80) else f"{name}:{port}").encode("ascii")


def _authority_of_url(scheme: str, rest: str, text: str) -> str:
    if scheme not in ("http", "https"):
        raise ValueError(f"{shown(text)} is not an application's address; write {UPSTREAM_FORMS}")
    authority, _, path = rest.partition("/")
    if "@" in rest:
        # Not shown: messages end in logs, and this may be a password.
        raise ValueError("a user name or password in the address is not supported")
    if authority == "unix:":
        raise ValueError(f"{shown(text)}: a Unix socket is written unix:/{path}")
    if path or "?" in authority or "#" in authority:
        raise ValueError(
            f"{shown(text)}: a path is not possible, since requests keep their own; "
            f"write {scheme}://{re.split('[?#]', authority)[0]}"
        )
    has_port = ":" in authority.rpartition("]")[2]
    if has_port or not authority:
        return authority
    return f"{authority}:{443 if scheme == 'https' else 80}"


def _unix_path(cleaned: str, text: str) -> str:
    path = cleaned.removeprefix("unix:")
    if path.startswith("//"):
        path = "/" + path.lstrip("/")  # unix:///run/app.sock means the same
    if not path or "\0" in path:
        raise ValueError(f"{shown(text)} names no socket; write unix:/run/app.sock")
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_BYTES_MAX:
        raise ValueError(
            f"{shown(text)}: the path of a socket has at most {UNIX_PATH_BYTES_MAX} bytes"
        )
    return path


def _host_and_port(cleaned: str, text: str, forms: str) -> tuple[str, int]:
    if _is_port(cleaned):
        return "", _port(cleaned, text)
    host, separator, port = cleaned.rpartition(":")
    if not separator or not _is_port(port):
        raise ValueError(f"{shown(text)} has no port; write {forms}")
    return _host(host, text, forms), _port(port, text)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _port(digits: str, text: str) -> int:
    # Compared as text first: int() is slow for thousands of digits, and then fails.
    if len(digits) > 5 or int(digits) > 65535:
        raise ValueError(f"{shown(text)}: a port is at most 65535")
    return int(digits)


def _host(host: str, text: str, forms: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return _ipv6(host[1:-1], text)
    if ":" in host:
        raise ValueError(f"{shown(text)}: an IPv6 address needs brackets, as in [::1]:8080")
    if not host:
        return host
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{shown(text)} is not an address; write {forms}")
    # A name whose last label is a number can only be an IPv4 address.
    if host.rpartition(".")[2].isdigit() and not _is_address(socket.AF_INET, host):
        raise ValueError(f"{shown(text)}: {host} is not an IPv4 address")
    return host


def _ipv6(host: str, text: str) -> str:
    address, percent, zone = host.partition("%")
    if not _is_address(socket.AF_INET6, address) or (percent and not _ZONE.fullmatch(zone)):
        raise ValueError(f"{shown(text)}: {shown(host)} is not an IPv6 address")
    return host


def is_loopback(host: str) -> bool:
    """Return whether a name, or an address without brackets, means only this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_address(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


# -- the server that boxes share -------------------------------------------------------------------

SERVER_FORMS: Final = (
    "redis://HOST[:PORT][/N], rediss://HOST or unix:///run/redis.sock, with USER:PASSWORD@ before "
    "the host if needed"
)
# What redis-py understands behind a `?`: files for TLS, whose values are paths, and others with
# these values. Of a wrong one, it says nothing before the first connection.
SERVER_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SERVER_OPTIONS: Final = {
    "db": (re.compile("[0-9]{1,4}"), "a number"),
    "ssl_cert_reqs": (re.compile("none|optional|required"), "none, optional or required"),
    "ssl_check_hostname": (re.compile("(?i:true|false|yes|no|1|0)"), "true or false"),
    **dict.fromkeys(SERVER_FILES, (re.compile(".+"), "the path of a file")),
}
_PASSWORD: Final = re.compile(r"(?<=//)([^/@]*?):[^/]*(?=@)")


def without_password(url: str) -> str:
    """Return the URL of a server with `***` instead of its password."""
    return _PASSWORD.sub(r"\1:***", url)


def check_server_url(text: str) -> str:
    """Return the URL of a Redis or Valkey.

    Raises:
        ValueError: It is none. The message never shows a password.
    """
    from urllib.parse import parse_qsl, urlsplit

    wrong = ValueError(
        f"{shown(without_password(text))} is not the URL of a server: {SERVER_FORMS}"
    )
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise wrong from None
    if url.scheme not in ("redis", "rediss", "unix") or url.fragment or text != text.strip():
        raise wrong
    if url.scheme == "unix":
        if not url.path.startswith("/") or url.hostname:
            raise wrong
    elif (
        port == 0
        or not re.fullmatch(r"[^\s,]+", url.hostname or "")
        or not re.fullmatch(r"/?|/[0-9]{1,4}", url.path)
    ):
        raise wrong
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if name not in _SERVER_OPTIONS:
            raise ValueError(
                f"{shown(name)} is not an option of a server; allowed: "
                f"{', '.join(sorted(_SERVER_OPTIONS))}"
            )
        pattern, allowed = _SERVER_OPTIONS[name]
        if not pattern.fullmatch(value):
            raise ValueError(f"{name}: {shown(value)} is not {allowed}")
        if name.startswith("ssl_") and url.scheme != "rediss":
            raise ValueError(f"{name} is for TLS; write rediss:// in place of {url.scheme}://")
    return text


def server_files(url: str) -> list[tuple[str, str]]:
    """Return the files that the URL of a server names, each with the name of its option."""
    from urllib.parse import parse_qsl, urlsplit

    options = parse_qsl(urlsplit(url).query)
    return [(name, value) for name, value in options if name in SERVER_FILES]
