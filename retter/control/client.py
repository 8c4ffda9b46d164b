"""One request to the admin listener and its response: http.client over TCP or a Unix socket."""

import http.client
import json
import socket
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, cast

from retter.config.units import ListenAddress

# A whole answer has twice the time of a wait for its next octets: another program may send an octet
# now and then for ever.
WHOLE_ANSWER: Final = 2

# The listener answers within milliseconds; a machine that swaps may take seconds.
TIMEOUT_S: Final = 5.0
# Ports that are tried for other RETTERs on this machine, as the proxy does (a test compares them).
# A RETTER answers at once, and any other program must not delay the command.
NEIGHBOURS_MAX: Final = 9
NEIGHBOUR_S: Final = 0.5
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024  # a state document has a few KB

# The address to connect to if the listener accepts connections on every interface.
_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class ControlError(Exception):
    """The request was refused. The message is one line that says what to do."""


class Mistaken(ControlError):
    """The request is not understood or not possible: an argument has to change."""


class Unreachable(ControlError):
    """Nothing answers there. `neighbours` are other RETTERs: their addresses and applications."""

    neighbours: Sequence[tuple[str, str]] = ()


class AdminClient:
    """Sends requests to one admin listener.

    Args:
        address: The address of the listener.
        token: Its `--admin-token`; "" for none.
        by_default: The address is the default, so another RETTER may have the next port.
        timeout_s: For an answer.
    """

    def __init__(
        self,
        address: ListenAddress,
        token: str = "",
        *,
        by_default: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.address = address
        self.by_default = by_default
        self._token = token
        self._timeout_s = timeout_s

    def neighbours(self) -> list[tuple[str, str]]:
        """Return (address, application) of the RETTERs that have the ports after this one."""
        found: list[tuple[str, str]] = []
        for port in range(self.address.port + 1, self.address.port + NEIGHBOURS_MAX + 1):
            address = replace(self.address, port=port)
            try:
                state = AdminClient(address, self._token, timeout_s=NEIGHBOUR_S).state()
            except ControlError:
                continue
            found.append((str(address), str(state["upstream"]["address"])))
        return found

    def get(self, path: str, *names: str) -> dict[str, Any]:
        """Return the JSON document of a path, which has these names.

        Raises:
            Unreachable: Nothing answers there.
            Mistaken: An argument is wrong.
            ControlError: It was refused.
        """
        return self._with(names, self._ask("GET", path, None))

    def post(self, path: str, body: dict[str, Any], *names: str) -> dict[str, Any]:
        """Change something, and return the resulting JSON document. Raises as `get`."""
        return self._with(names, self._ask("POST", path, json.dumps(body).encode()))

    def _with(self, names: Sequence[str], found: dict[str, Any]) -> dict[str, Any]:
        if any(name not in found for name in names):
            raise self._stranger()
        return found

    def _ask(self, method: str, target: str, body: bytes | None) -> dict[str, Any]:
        fields = {"Accept": "application/json"}
        if body is not None:
            fields["Content-Type"] = "application/json"
        if self._token:
            fields["Authorization"] = f"Bearer {self._token}"
        connection = self._connection()
        try:
            connection.connect()
            with ended_after(WHOLE_ANSWER * self._timeout_s, connection.sock):
                connection.request(method, target, body, fields)
                with connection.getresponse() as answer:
                    status, data = answer.status, answer.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            unreachable = Unreachable(
                f"no admin listener answers at {self.address} ({why}): is RETTER running "
                "with this --admin? Give another address with --admin, RETTER_ADMIN or --config"
            )
            if self.by_default:
                unreachable.neighbours = self.neighbours()
            raise unreachable from None
        finally:
            connection.close()
        return self._read(status, data)

    def state(self) -> dict[str, Any]:
        """Return the state document. Raises as `get`."""
        found = self.get("/api/state", "state", "version")
        if not isinstance(found.get("situation", {}), dict):
            raise self._stranger()
        if "now" not in found.get("situation", {}):
            raise ControlError(
                f"the RETTER at {self.address} is an older one ({found['version']}): "
                "use the retter command that belongs to it"
            )
        return found

    def _stranger(self) -> ControlError:
        return ControlError(
            f"the server at {self.address} is not an admin listener of RETTER: see --admin"
        )

    def _read(self, status: int, data: bytes) -> dict[str, Any]:
        try:
            document: object = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._stranger()
        found = cast("dict[str, Any]", document)
        if status == 401:
            raise ControlError(
                f"the admin listener at {self.address} requires "
                f"{'another' if self._token else 'a'} token: --admin-token or RETTER_ADMIN_TOKEN"
            )
        if status == 400:
            raise Mistaken(str(found.get("error", "it is not understood")))
        if status >= 400:
            raise ControlError(f"refused: {found.get('error', f'status {status}')}")
        return found

    def _connection(self) -> http.client.HTTPConnection:
        address = self.address
        if address.kind == "unix":
            return _UnixConnection(address.path)
        host = _ANY.get(address.host, address.host)
        return http.client.HTTPConnection(host, address.port, timeout=self._timeout_s)


@contextmanager
def ended_after(seconds: float, sock: socket.socket) -> Generator[None, None, None]:
    """End an exchange that has not ended by itself by then: it fails as if the server had left."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS, which a thread uses

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if late.is_set():
            raise TimeoutError(f"no whole answer within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"no whole answer within {seconds:g} s")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)
