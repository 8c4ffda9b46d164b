"""The log says once that the application cannot be reached, and once that it can again."""

import errno
import socket
import ssl

import pytest
from structlog.testing import capture_logs

from retter.process.upstream_watch import AGAIN_S, TRY_S, Absence
from retter.proxy.pool import connect_fault
from tests.support.harness import FakeProxy

REFUSED = "connection refused: nothing listens there"


def test_it_is_said_once_and_when_it_is_over() -> None:
    services = FakeProxy(upstream="127.0.0.1:8080").services
    absence = Absence(services, lambda: None)
    with capture_logs() as records:
        for now, fault in enumerate(["", "", REFUSED, REFUSED, "another", "", ""]):
            services.pool.fault = fault
            absence.on_second(float(now))
    warning, info = records
    assert (warning["event"], warning["error"]) == ("application-absent", REFUSED)
    assert (info["event"], info["absent_s"]) == ("application-back", 3)
    assert warning["upstream"] == info["upstream"] == "127.0.0.1:8080"


def test_one_that_comes_and_goes_does_not_fill_the_log() -> None:
    services = FakeProxy().services
    absence = Absence(services, lambda: None)
    with capture_logs() as records:
        for now in range(100):
            services.pool.fault = REFUSED if now % 2 else ""
            absence.on_second(float(now))
    warnings = [record for record in records if record["event"] == "application-absent"]
    assert len(warnings) <= 100 / AGAIN_S
    assert len(records) <= 2 * len(warnings)


def test_while_nobody_asks_the_address_is_tried_again_and_again() -> None:
    """Else an old refusal would be told until the next visitor comes."""
    services = FakeProxy().services
    probes: list[float] = []
    now = 0.0

    def probe() -> None:
        probes.append(now)
        if now >= 12:
            services.pool.fault = ""

    absence = Absence(services, probe)
    with capture_logs() as records:
        for second in range(40):
            now = float(second)
            if second == 2:
                services.pool.fault = REFUSED
            if second == 4:
                services.pool.dials += 1  # a visitor has tried it
            absence.on_second(now)
    assert probes == [4 + TRY_S, 4 + 2 * TRY_S]
    assert [record["event"] for record in records] == ["application-absent", "application-back"]


@pytest.mark.parametrize(
    ("error", "tls", "said"),
    [
        # As asyncio words it, and as uvloop does.
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 80)"),
            False,
            REFUSED,
        ),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), True, REFUSED),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory"),
            False,
            "there is no such socket",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), False, "RETTER may not connect there"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed"), False, "No route to host"),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            False,
            "Name or service not known",
        ),
        (TimeoutError(), False, "the connection was not accepted in time"),
        (TimeoutError(errno.ETIMEDOUT, "Connect call failed"), False, "Connection timed out"),
        (OSError("Multiple exceptions"), False, "Multiple exceptions"),
        (ConnectionResetError(), True, "no TLS with it: it closed the connection in the handshake"),
        (ConnectionResetError(errno.ECONNRESET, "x"), False, "Connection reset by peer"),
        (ConnectionResetError(), False, "ConnectionResetError"),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x"),
            True,
            "no TLS with it: [ssl: wrong version number] x",
        ),
    ],
)
def test_why_there_is_no_connection(error: OSError, tls: bool, said: str) -> None:
    assert connect_fault(error, tls) == said


def test_a_resolver_that_fails_is_told_of_as_well() -> None:
    services = FakeProxy(upstream="app.example:80").services
    absence = Absence(services, lambda: None)
    with capture_logs() as records:
        for now, fault in enumerate(["", "try again", "try again", "", ""]):
            services.pool.resolver.fault = fault
            absence.on_second(float(now))
    assert [record["event"] for record in records] == ["resolver-fails", "resolver-back"]
    assert (records[0]["error"], records[1]["failed_s"]) == ("try again", 2)
