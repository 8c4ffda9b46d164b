"""Programs that ask for compression: curl, httpx, Chromium. And bodies too long for one piece."""

import hashlib
import http.client
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import pytest

from retter.compression.compressors import available
from tests.real.browser import Watched, chromium
from tests.real.conftest import StartRetter
from tests.real.gate import Gate
from tests.real.processes import DEADLINE_S, ApplicationProgram, RetterProgram, eventually
from tests.real.test_dashboard import Shop
from tests.real.wire import Answer, connect, fetch, read_until
from tests.support.tracing import untraced

pytestmark = untraced

MIB = 1024 * 1024
PATHS = ("/", "/product/1", "/search?q=a", "/static/shop.css")
CODINGS = ("gzip", "br", "zstd")
GZIP_WBITS = zlib.MAX_WBITS | 16


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    program = Shop()
    yield program
    program.kill()


@pytest.fixture
def proxy(shop: Shop, start_retter: StartRetter, loop_name: str) -> RetterProgram:
    """Return a proxy that serves stored responses, so that two requests see both sources."""
    return start_retter("--upstream", shop.upstream, "--circuit", "open", "--loop", loop_name)


def plain(proxy: RetterProgram, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    answer = fetch(proxy.port, "GET", path, headers)
    assert answer.stored and answer.get("content-encoding") is None
    return answer


def until_coded(ask: Callable[[str, str], str | None], path: str) -> None:
    """Ask for ever new pages, and each of them again, until both sources have compressed one.

    Where this machine is busy, some answers go out as they are; their bytes are right all the same.
    """
    fresh = (f"{path}{'&' if '?' in path else '?'}n={number}" for number in count())
    found = ""

    def coded_by_the_application() -> bool:
        nonlocal found
        found = next(fresh)
        return ask(found, "backend") is not None

    eventually(coded_by_the_application, f"{path} compressed on its way")
    eventually(lambda: ask(found, "cache") is not None, f"{path} compressed in the store")


# -- curl


def test_curl_gets_the_same_bytes(proxy: RetterProgram, curl: str) -> None:
    def ask(path: str, source: str) -> str | None:
        done = subprocess.run(
            [curl, "--disable", "--silent", "--compressed", "--dump-header", "/dev/stderr",
             "--noproxy", "", "--max-time", str(DEADLINE_S),
             f"http://127.0.0.1:{proxy.port}{path}"],
            capture_output=True, timeout=2 * DEADLINE_S, check=True,
        )  # fmt: skip
        head = done.stderr.decode().lower()
        assert f"x-retter: {source}" in head and "vary: accept-encoding" in head
        assert done.stdout == plain(proxy, path).body
        return "coded" if "content-encoding: " in head else None

    for path in PATHS:
        until_coded(ask, path)


# -- httpx


@pytest.mark.parametrize("coding", CODINGS)
def test_httpx_gets_the_same_bytes(proxy: RetterProgram, coding: str) -> None:
    httpx: Any = pytest.importorskip("httpx", reason="httpx is not installed (pip install httpx)")
    if not available(coding.encode()):
        pytest.skip(f"{coding} is not installed (pip install zstandard brotli)")
    base = f"http://127.0.0.1:{proxy.port}"
    with httpx.Client(base_url=base, trust_env=False, timeout=DEADLINE_S) as client:

        def ask(path: str, source: str) -> str | None:
            answer = client.get(path, headers={"Accept-Encoding": coding})
            assert answer.headers["x-retter"] == source
            assert answer.content == plain(proxy, path).body
            found: str | None = answer.headers.get("content-encoding")
            assert found in (coding, None)
            return found

        for path in PATHS:
            until_coded(ask, path)


# -- Chromium

# Fields of a browser that change what an application may answer.
SEPARATING = (
    "accept",
    "accept-language",
    "sec-ch-ua-mobile",
    "sec-fetch-dest",
    "upgrade-insecure-requests",
    "user-agent",
)


@pytest.mark.release
def test_chromium_shows_the_pages(proxy: RetterProgram) -> None:
    with chromium() as browser:

        def ask(path: str, source: str) -> str | None:
            # A context of its own: nothing comes from the browser's cache.
            context = browser.new_context()
            page = context.new_page()
            watched = Watched(page, f"http://127.0.0.1:{proxy.port}")
            document = page.goto(watched.origin + path)
            assert document.headers["x-retter"] == source
            # A page for a browser is stored apart from one for any client.
            headers = document.request.all_headers()
            asked = {name: headers[name] for name in SEPARATING if name in headers}
            assert document.text() == plain(proxy, path, asked).text
            assert page.evaluate("document.styleSheets[0].cssRules.length") > 3
            watched.check("status of 404")  # there is no icon
            context.close()
            found: str | None = document.headers.get("content-encoding")
            assert found in (*CODINGS, None)
            return found

        for path in PATHS[:3]:
            until_coded(ask, path)


# -- long bodies


@pytest.fixture
def long_proxy(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> RetterProgram:
    return start_retter("--upstream", application.upstream, "--loop", loop_name)


def download(port: int, target: str) -> tuple[str, int] | None:
    """Return the digest of what a gzip client gets, and how much came over the wire."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    connection.request("GET", target, headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.status == 200
    if response.getheader("content-encoding") is None:
        connection.close()  # this machine is busy
        return None
    assert response.getheader("content-encoding") == "gzip"
    inflater, digest, wire = zlib.decompressobj(GZIP_WBITS), hashlib.sha256(), 0
    while piece := response.read(64 * 1024):
        wire += len(piece)
        digest.update(inflater.decompress(piece))
    assert inflater.eof
    connection.close()
    return digest.hexdigest(), wire


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_long_body_is_compressed_as_it_comes(
    application: ApplicationProgram, long_proxy: RetterProgram, framing: str
) -> None:
    size = 64 * MIB
    target = f"/download?bytes={size}&type=text/plain&framing={framing}"
    warm = f"/download?bytes={8 * MIB}&type=text/plain"
    eventually(lambda: download(long_proxy.port, warm), "it is warm")
    long_proxy.forget_peak()
    before = long_proxy.memory_bytes("VmRSS")
    found = eventually(lambda: download(long_proxy.port, target), "it is compressed")
    assert found is not None
    digest, wire = found
    assert long_proxy.memory_bytes("VmHWM") - before < 8 * MIB
    assert digest == hashlib.sha256(fetch(application.port, "GET", target).body).hexdigest()
    assert wire < size


@pytest.mark.parametrize("size", [1000, 400_000])
def test_what_is_written_reaches_the_client(
    application: ApplicationProgram, long_proxy: RetterProgram, size: int
) -> None:
    """The application stops in the middle, however large the piece was; and goes on."""

    def ask() -> bool:
        gate = Gate(application, "middle")
        client = connect(long_proxy.port)
        target = f"/download?bytes={size}&type=text/plain&framing=close&gate={gate.name}"
        client.sendall(
            f"GET {target} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        head, _, body = read_until(client, b"\r\n\r\n").partition(b"\r\n\r\n")
        coded = b"content-encoding: gzip" in head.lower()
        while len(decoded_so_far(body, coded)) < size // 2:
            piece = client.recv(65536)  # in vain if something is held back
            assert piece
            body += piece
        gate.open()
        while piece := client.recv(65536):
            body += piece
        assert len(decoded_so_far(body, coded)) == size
        client.close()
        return coded

    eventually(ask, "it is compressed")


def decoded_so_far(body: bytes, coded: bool) -> bytes:
    """Decode what there is of a chunked body."""
    inflater, decoded = zlib.decompressobj(GZIP_WBITS), b""
    while (end := body.find(b"\r\n")) >= 0:
        size = int(body[:end], 16)
        piece = body[end + 2 : end + 2 + size]
        decoded += inflater.decompress(piece) if coded else piece
        body = body[end + 4 + size :]
    return decoded
