"""TLS towards clients and towards the application, on both loops."""

import asyncio
import contextlib
import hashlib
import http.client
import random
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trustme", reason="trustme is not installed (pip install trustme)")

import trustme

import retter
from tests.real.conftest import StartRetter
from tests.real.gate import Gate
from tests.real.inside import eventually_async, in_time, run
from tests.real.processes import (
    DEADLINE_S,
    ApplicationProgram,
    Program,
    RetterProgram,
    eventually,
    free_port,
)
from tests.real.slow_readers import hold_little
from tests.real.wire import Answer, connect, fetch

MIB = 1 << 20
NAMES = {"a": ("127.0.0.1", "a.example", "*.a.example"), "b": ("b.example",)}


class Authority:
    """Certificates in files, and who believes them."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.ca_file = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca_file)
        for name, names in NAMES.items():
            self.issue(name, *names)

    def issue(self, name: str, *names: str) -> None:
        certificate = self.authority.issue_cert(*names)
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (self.folder / f"{name}.crt").write_bytes(chain)
        (self.folder / f"{name}.key").write_bytes(certificate.private_key_pem.bytes())
        (self.folder / f"{name}.pem").write_bytes(certificate.private_key_pem.bytes() + chain)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def connect(self, port: int, name: str = "127.0.0.1") -> ssl.SSLSocket:
        return self.context().wrap_socket(connect(port), server_hostname=name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def options(authority: Authority, loop_name: str) -> list[str]:
    return ["--loop", loop_name, "--tls-cert", authority.path("a.crt"), "--tls-key",
            authority.path("a.key"), "--tls-cert", authority.path("b.crt"), "--tls-key",
            authority.path("b.key")]  # fmt: skip


@pytest.fixture
def proxy(
    application: ApplicationProgram, start_retter: StartRetter, options: list[str]
) -> RetterProgram:
    return start_retter("--upstream", application.upstream, *options, listen="127.0.0.1:0,tls")


class SecureClient:
    """One persistent connection."""

    def __init__(self, authority: Authority, port: int) -> None:
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=DEADLINE_S, context=authority.context()
        )

    def __call__(
        self, method: str, target: str, body: object = None, fields: dict[str, str] | None = None
    ) -> Answer:
        self.connection.request(method, target, body, fields or {})  # type: ignore[arg-type]
        response = self.connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())


@pytest.fixture
def client(authority: Authority, proxy: RetterProgram) -> Iterator[SecureClient]:
    client = SecureClient(authority, proxy.port)
    yield client
    client.connection.close()


# -- clients -------------------------------------------------------------------------------------


def test_requests_over_tls(proxy: RetterProgram, client: SecureClient) -> None:
    assert proxy.addresses[0].startswith("https://127.0.0.1:")
    first = client("GET", "/page", fields={"X-Forwarded-Proto": "http"})
    local = client.connection.sock.getsockname()
    told = dict(first.json["fields"])
    assert (told["X-Forwarded-Proto"], told["X-Forwarded-For"]) == ("https", "127.0.0.1")
    assert client("POST", "/form", b"x=1").json["length"] == 3
    assert client.connection.sock.getsockname() == local  # kept alive
    secure = client.connection.sock
    assert isinstance(secure, ssl.SSLSocket)
    assert (secure.version(), secure.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")


@pytest.mark.parametrize(
    ("name", "certificate"),
    [
        ("a.example", "a"),
        ("www.a.example", "a"),
        ("B.example", "b"),
        (None, "a"),
        ("c.example", "a"),
    ],
)
def test_the_name_asked_for_chooses_the_certificate(
    proxy: RetterProgram, authority: Authority, name: str | None, certificate: str
) -> None:
    context = authority.context()
    context.check_hostname = False
    with context.wrap_socket(connect(proxy.port), server_hostname=name) as secure:
        shown = secure.getpeercert()
        assert shown is not None
        pairs: Any = shown["subjectAltName"]
        names = tuple(value for _, value in pairs)
        assert set(names) == set(NAMES[certificate])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(
    proxy: RetterProgram, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.context()
    context.minimum_version = context.maximum_version = version
    session: ssl.SSLSession | None = None
    for number in range(2):
        with context.wrap_socket(
            connect(proxy.port), server_hostname="b.example", session=session
        ) as secure:
            secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert secure.recv(12) == b"HTTP/1.1 200"  # a ticket comes before it
            assert secure.session_reused == bool(number)
            session = secure.session


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_are_refused(proxy: RetterProgram, authority: Authority) -> None:
    context = authority.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(connect(proxy.port), server_hostname="a.example")
    with authority.connect(proxy.port) as newest:
        assert newest.version() == "TLSv1.3"


def test_large_bodies_both_ways(client: SecureClient) -> None:
    body = random.randbytes(1000) * 20_000
    assert client("POST", "/", body).json["sha256"] == hashlib.sha256(body).hexdigest()
    for framing in ("length", "chunked", "close"):
        answer = client("GET", f"/download?bytes={20 * MIB}&framing={framing}")
        assert (
            hashlib.sha256(answer.body).digest()
            == hashlib.sha256(bytes(range(256)) * (20 * MIB // 256)).digest()
        )


def test_a_slow_reader_stops_the_application(
    application: ApplicationProgram, proxy: RetterProgram, authority: Authority
) -> None:
    total = 256 * MIB

    def sent() -> int:
        figure: int = fetch(application.port, "GET", "/figures").json["sent"]
        return figure

    before = sent()
    with authority.connect(proxy.port) as secure:
        secure.sendall(b"GET /download?bytes=%d HTTP/1.1\r\nHost: a\r\n\r\n" % total)
        assert secure.recv(1000)
        seen = [-1]

        def at_a_stand() -> bool:
            seen.append(sent())
            return seen[-1] == seen[-2] > before

        eventually(at_a_stand, "the application has to wait")
        assert sent() - before < total
        secure.settimeout(DEADLINE_S)
        received = 0
        while received < 32 * MIB:  # and it goes on when the client reads
            received += len(secure.recv(MIB))
    assert proxy.memory_bytes("VmHWM") < 100 * MIB
    eventually(lambda: _at_rest(application), "an abort ends the download")


def _at_rest(application: ApplicationProgram) -> bool:
    # its own question is one connection
    return bool(fetch(application.port, "GET", "/figures").json["connections"] <= 1)


def test_half_a_close_is_a_close(proxy: RetterProgram, authority: Authority) -> None:
    """Over TLS there is no other; what is answered at once still arrives."""
    secure = authority.connect(proxy.port)
    secure.sendall(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = HTTPResponse(secure)
    answer.begin()
    assert answer.status == 200
    assert answer.read()
    raw = secure.unwrap()  # close_notify both ways
    assert raw.recv(1) == b""
    raw.close()


def test_a_refused_upload_gets_its_answer(
    application: ApplicationProgram,
    start_retter: StartRetter,
    options: list[str],
    authority: Authority,
) -> None:
    """413 while the client is still sending: closing at once would reset the connection."""
    proxy = start_retter(
        "--upstream",
        application.upstream,
        "--request-body-max",
        "1000",
        *options,
        listen="127.0.0.1:0,tls",
    )
    with authority.connect(proxy.port) as secure:
        secure.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n")
        secure.sendall(bytes(400_000))
        assert secure.recv(12) == b"HTTP/1.1 413"


def test_slow_readers_of_a_large_stored_page_hold_little_of_it(
    application: ApplicationProgram, authority: Authority, loop_name: str
) -> None:
    """Each has its own encrypted bytes, so a whole page would be as many copies."""

    async def main() -> None:
        settings = retter.Settings(
            upstream=application.upstream,
            listen=("127.0.0.1:0,tls",),
            tls_cert=(authority.path("a.pem"),),
        )
        async with retter.running(settings) as proxy:
            await hold_little(proxy, authority.context())

    run(main(), loop_name)


def test_plain_http_on_a_tls_port_is_closed(proxy: RetterProgram) -> None:
    with connect(proxy.port) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        try:
            while piece := plain.recv(1000):
                received += piece
        except ConnectionError:
            pass
        assert b"HTTP" not in received


def test_handshakes_are_bounded_in_number(
    application: ApplicationProgram,
    start_retter: StartRetter,
    options: list[str],
    authority: Authority,
) -> None:
    proxy = start_retter(
        "--upstream",
        application.upstream,
        "--head-timeout",
        "1h",
        "--connections-max",
        "2",
        *options,
        listen="127.0.0.1:0,tls",
    )
    silent = [connect(proxy.port) for _ in range(3)]
    with authority.connect(proxy.port) as secure:  # those that wait longest make room
        for one in silent[:2]:
            assert _is_closed(one)
        secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert secure.recv(12) == b"HTTP/1.1 200"
    silent[2].close()


def test_handshakes_are_bounded_in_time(
    application: ApplicationProgram, start_retter: StartRetter, options: list[str]
) -> None:
    proxy = start_retter(
        "--upstream",
        application.upstream,
        "--head-timeout",
        "100ms",
        *options,
        listen="127.0.0.1:0,tls",
    )
    assert _is_closed(connect(proxy.port))


def test_handshakes_that_end_early_leave_nothing_behind(
    authority: Authority, loop_name: str
) -> None:
    """Silent to the end of their time, cut at any place, or reset."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.context().wrap_bio(incoming, outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()

    async def main() -> None:
        settings = retter.Settings(
            upstream=":1",
            listen=("127.0.0.1:0,tls",),
            tls_cert=(authority.path("a.pem"),),
            head_timeout_s=0.3,
        )
        async with retter.running(settings) as proxy:
            port = int(proxy.address.rpartition(":")[2])
            silent = []
            for number in range(60):
                one = connect(port)
                one.sendall(hello[: len(hello) * (number % 4) // 3])
                if number % 3:
                    await asyncio.sleep(0.003)
                if number % 5 == 0:
                    silent.append(one)
                    continue
                if number % 2:  # reset in place of a proper end
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()
            await eventually_async(
                lambda: proxy.stats()["tls_failed"] == 60 and len(asyncio.all_tasks()) == 1,
                "all have ended",
            )
            assert proxy.stats()["connections"]["open"] == 0
            for one in silent:
                assert _is_closed(one)

    run(main(), loop_name)


def _is_closed(one: socket.socket) -> bool:
    with one:
        try:
            while one.recv(65536):
                pass
        except ConnectionError:
            pass
        return True  # else recv has timed out


@pytest.mark.parametrize("pause", [False, True])
def test_a_proxy_header_before_the_handshake(
    application: ApplicationProgram,
    start_retter: StartRetter,
    options: list[str],
    authority: Authority,
    pause: bool,
) -> None:
    proxy = start_retter(
        "--upstream", application.upstream, *options, listen="127.0.0.1:0,proxy,tls"
    )
    told = b"PROXY TCP4 192.0.2.33 127.0.0.1 40000 443\r\n"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.context().wrap_bio(incoming, outgoing, server_hostname="a.example")
    with connect(proxy.port) as raw:
        if pause:
            raw.sendall(told[:10])
            told = told[10:]
        done = False
        while not done:
            try:
                client.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            raw.sendall(told + outgoing.read())  # the first with the whole of ClientHello
            told = b""
            if not done:
                incoming.write(raw.recv(65536))
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        raw.sendall(outgoing.read())
        answer = b""
        while piece := raw.recv(65536):
            incoming.write(piece)
            with contextlib.suppress(ssl.SSLWantReadError):
                while more := client.read(65536):
                    answer += more
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'["X-Forwarded-For", "192.0.2.33"]' in answer
    assert b'["X-Forwarded-Proto", "https"]' in answer


def test_websockets_over_tls(
    start_retter: StartRetter, options: list[str], authority: Authority
) -> None:
    pytest.importorskip("websockets", reason="websockets is not installed")
    from websockets.asyncio.client import connect as join
    from websockets.exceptions import ConnectionClosed

    port = free_port()
    echo = Program([sys.executable, "-m", "tests.real.echo", str(port)])
    try:
        echo.wait_for_line(lambda line: line == "ready")
        proxy = start_retter("--upstream", f":{port}", *options, listen="127.0.0.1:0,tls")

        async def main() -> None:
            url = f"wss://127.0.0.1:{proxy.port}/"
            async with join(url, ssl=authority.context(), proxy=None, max_size=None) as client:
                for message in ("hello", random.randbytes(4 * MIB)):
                    await client.send(message)
                    assert await asyncio.wait_for(client.recv(), DEADLINE_S) == message
            assert client.close_code == 1000
            async with join(url, ssl=authority.context(), proxy=None) as client:
                echo.kill()  # the application's end is the client's
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(client.recv(), DEADLINE_S)

        asyncio.run(main())
    finally:
        echo.kill()


def test_draining_over_tls(
    application: ApplicationProgram, proxy: RetterProgram, authority: Authority
) -> None:
    gate = Gate(application, "drain")
    busy = SecureClient(authority, proxy.port)
    busy.connection.request("GET", f"/wait?gate={gate.name}")
    eventually(gate.waiting, "it is on its way")
    proxy.signal(15)
    proxy.wait_for_line(lambda line: "draining" in line)
    gate.open()
    response = busy.connection.getresponse()
    assert (response.read(), response.getheader("connection")) == (b"done", "close")
    assert proxy.wait() == 0


def test_a_handshake_under_way_is_not_cut_by_a_drain(
    application: ApplicationProgram,
    authority: Authority,
    loop_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However slow the network is: its own time limit ends it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.context().wrap_bio(incoming, outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        settings = retter.Settings(
            upstream=application.upstream,
            listen=("127.0.0.1:0,tls",),
            tls_cert=(authority.path("a.pem"),),
        )
        async with retter.running(settings) as proxy:
            raw = connect(int(proxy.address.rpartition(":")[2]))
            raw.setblocking(False)
            await loop.sock_sendall(raw, hello[:100])
            await eventually_async(lambda: proxy.stats()["connections"]["open"], "it is accepted")
            monkeypatch.setattr("retter.proxy.proxy.DRAIN_IDLE_S", 0.0)
            drained = asyncio.ensure_future(proxy._drain())
            await eventually_async(lambda: proxy._services.draining, "it drains")
            monkeypatch.setattr("retter.proxy.proxy.DRAIN_IDLE_S", DEADLINE_S)
            await loop.sock_sendall(raw, hello[100:])
            answer = b""
            while not answer:
                incoming.write(await in_time(loop.sock_recv(raw, 65536)))
                with contextlib.suppress(ssl.SSLWantReadError):  # until there is enough
                    if client.version() is None:
                        client.do_handshake()
                        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    answer = client.read(12)
                await loop.sock_sendall(raw, outgoing.read())
            assert answer == b"HTTP/1.1 200"
            raw.close()
            await in_time(drained)

    run(main(), loop_name)


# -- the application -------------------------------------------------------------------------------


@contextlib.contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Talk to whoever connects, one after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    talk(connection)
                if listener.fileno() < 0:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(DEADLINE_S)


@pytest.fixture(scope="module")
def secure_application(authority: Authority) -> Iterator[ApplicationProgram]:
    program = ApplicationProgram(pem=authority.path("a.pem"))
    yield program
    program.kill()


def test_an_application_behind_tls(
    secure_application: ApplicationProgram,
    start_retter: StartRetter,
    authority: Authority,
    loop_name: str,
) -> None:
    proxy = start_retter(
        "--upstream",
        f"https://127.0.0.1:{secure_application.port}",
        "--upstream-ca",
        authority.ca_file,
        "--loop",
        loop_name,
    )
    told = fetch(proxy.port, "GET", "/page")
    assert told.status == 200
    assert dict(told.json["fields"])["X-Forwarded-Proto"] == "http"
    body = random.randbytes(1000) * 8_000
    assert fetch(proxy.port, "POST", "/", body=body).json["length"] == len(body)
    for framing in ("length", "chunked", "close"):
        answer = fetch(proxy.port, "GET", f"/download?bytes={8 * MIB}&framing={framing}")
        assert len(answer.body) == 8 * MIB
    assert not [record for record in proxy.records() if record["event"] == "application-absent"]


@pytest.mark.parametrize(
    "options",
    [
        ("--upstream-name", "a.example"),
        ("--upstream-insecure",),
        (),
    ],
)
def test_whose_certificate_is_believed(
    secure_application: ApplicationProgram,
    start_retter: StartRetter,
    authority: Authority,
    loop_name: str,
    options: tuple[str, ...],
) -> None:
    believed = () if options == ("--upstream-insecure",) else ("--upstream-ca", authority.ca_file)
    address = "localhost" if not options else "127.0.0.1"  # its certificate has no "localhost"
    proxy = start_retter(
        "--upstream",
        f"https://{address}:{secure_application.port}",
        "--loop",
        loop_name,
        *believed,
        *options,
    )
    answer = fetch(proxy.port, "GET", "/page")
    if options:
        assert answer.status == 200
        return
    assert answer.status == 502
    assert answer.get("cache-status") == "retter; fwd=miss; detail=upstream-tls"
    line = proxy.wait_for_line(lambda line: "application-absent" in line)
    assert "its certificate is not to be believed: Hostname mismatch" in line


def test_no_tls_where_it_should_be(start_retter: StartRetter, loop_name: str) -> None:
    def answer_plainly(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with server(answer_plainly) as port:
        proxy = start_retter("--upstream", f"https://127.0.0.1:{port}", "--loop", loop_name)
        answer = fetch(proxy.port, "GET", "/page")
    assert (answer.status, answer.get("cache-status")) == (
        502,
        "retter; fwd=miss; detail=upstream-tls",
    )


def test_a_handshake_that_is_closed(start_retter: StartRetter, loop_name: str) -> None:
    def close_at_once(connection: socket.socket) -> None:
        connection.recv(10_000)

    with server(close_at_once) as port:
        proxy = start_retter(
            "--upstream",
            f"https://127.0.0.1:{port}",
            "--connect-hold",
            "200ms",
            "--loop",
            loop_name,
        )
        answer = fetch(proxy.port, "GET", "/page")
        line = proxy.wait_for_line(lambda line: "application-absent" in line)
    assert (answer.status, answer.get("cache-status")) == (
        502,
        "retter; fwd=miss; detail=upstream-tls",
    )
    assert "it closed the connection in the handshake" in line


def test_a_handshake_that_hangs(start_retter: StartRetter, loop_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = start_retter(
            "--upstream",
            f"https://127.0.0.1:{silent.getsockname()[1]}",
            "--connect-timeout",
            "300ms",
            "--loop",
            loop_name,
        )
        answer = fetch(proxy.port, "GET", "/page")
        assert (answer.status, answer.get("cache-status")) == (
            504,
            "retter; fwd=miss; detail=connect-timeout",
        )


@pytest.mark.parametrize("signed", [True, False])
def test_an_end_without_close_notify_is_no_end(
    start_retter: StartRetter, authority: Authority, loop_name: str, signed: bool
) -> None:
    """RFC 9112 section 9.8: an answer until close is whole only if TLS says that it is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.path("a.pem"))

    def answer(connection: socket.socket) -> None:
        # Closing sends no close_notify; only unwrapping does.
        with context.wrap_socket(connection, server_side=True) as secure:
            if secure.recv(10_000):
                secure.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1000))
            if signed:
                secure.unwrap()

    with server(answer) as port:
        proxy = start_retter(
            "--upstream", f"https://127.0.0.1:{port}", "--upstream-insecure", "--loop", loop_name
        )
        if signed:
            assert len(fetch(proxy.port, "GET", "/page").body) == 1000
        else:
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                fetch(proxy.port, "GET", "/page")
