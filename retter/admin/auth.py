"""Access to the admin listener: Host, Origin and token of a request.

A listener on the loopback interface accepts every program of the machine, including a browser that
shows pages of other sites. Two attacks of such pages are refused here: a foreign name that resolves
to 127.0.0.1 (DNS rebinding; visible in Host), and a form or script that sends a POST to RETTER
(visible in Origin and Sec-Fetch-Site).
"""

import re
from ipaddress import IPv6Address
from typing import Final

from retter.admin.message import AdminError, AdminRequest
from retter.config.files import SECRET_BYTES_MAX, read_file
from retter.config.settings import ConfigError, Settings
from retter.config.units import ListenAddress, is_loopback

# Answered without a token: the page, which contains no figures, and one word for load balancers.
OPEN_PATHS = frozenset({"/", "/ready"})


# uri-host and port (RFC 9110 section 7.2), but not what browsers never send: user information,
# percent-encoding, the zone of an address. An address in brackets is examined further.
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[0-9A-Za-z._-]{1,253}))(?::[0-9]{0,5})?"
)


def host_of(authority: str) -> str | None:
    """Return the name or address of a Host field, in lower case, without port and brackets.

    None if it is not a host with or without a port: then it does not show which site the sender
    wanted to reach.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return None
    address: str | None = found["ipv6"]
    if address is None:
        return found["name"].lower()
    try:
        return str(IPv6Address(address))
    except ValueError:
        return None


def read_token(settings: Settings, *, pipe: bool = False) -> str:
    """Return the token from the settings, or from the first line of its file.

    Args:
        pipe: The file may be a pipe: it is read only once.

    Raises:
        ConfigError: The file cannot be read, or contains no token.
    """
    path = settings.admin_token_file
    if not path:
        return settings.admin_token
    try:
        octets = read_file("admin_token_file", path, SECRET_BYTES_MAX, pipe=pipe)
        token = octets.decode("ascii").partition("\n")[0].strip()
    except UnicodeDecodeError:
        token = "?"
    try:
        return Settings(admin_token=token or "?").admin_token
    except ConfigError as error:
        why = str(error).partition(": ")[2]
        raise ConfigError(f"admin_token_file: {path}: {why}") from None


class Guard:
    """The rules for one listener.

    Args:
        address: The address that it listens on.
        token: The secret that a client must send; "" for none.
    """

    def __init__(self, address: ListenAddress, token: str) -> None:
        self._token = token.encode("latin-1")
        self._own_host = address.host.lower()
        # A foreign page does not know the token, and no browser connects to a Unix socket.
        self._any_host = address.kind == "unix" or not is_loopback(address.host)

    def check(self, request: AdminRequest) -> None:
        """Check a request.

        Raises:
            AdminError: 401 or 403.
        """
        self._check_host(request)
        self._check_site(request)
        if self._token and request.path not in OPEN_PATHS:
            self._check_token(request)

    def _check_host(self, request: AdminRequest) -> None:
        authority = request.first(b"host")
        if self._any_host or not authority:  # every browser sends it
            return
        host = host_of(authority)
        if host is not None and (is_loopback(host) or host == self._own_host):
            return
        raise AdminError(403, "Host names neither this machine nor the --admin address")

    def _check_site(self, request: AdminRequest) -> None:
        # Pages of the protected application may be "same-site" (another port of localhost). Content
        # that its visitors write must not reach this listener either.
        site = request.first(b"sec-fetch-site")
        if site and site not in ("same-origin", "none") and request.path != "/":
            raise AdminError(403, "the request comes from a page of another site")
        origin = request.first(b"origin")
        if origin and request.method == "POST":
            scheme, _, authority = origin.partition("://")
            if scheme not in ("http", "https") or authority != request.first(b"host"):
                raise AdminError(403, "the POST comes from a page of another site")

    def _check_token(self, request: AdminRequest) -> None:
        from hmac import compare_digest  # with OpenSSL's digests, which nobody else needs

        scheme, _, given = request.first(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and compare_digest(
            given.strip().encode("latin-1"), self._token
        ):
            return
        raise AdminError(
            401,
            "Authorization: Bearer with the --admin-token is needed",
            ("WWW-Authenticate", 'Bearer realm="retter"'),
        )
