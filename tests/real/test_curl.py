"""curl as the client, over TCP and Unix sockets, in all the ways that it speaks HTTP/1."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real.conftest import StartRetter
from tests.real.processes import DEADLINE_S, ApplicationProgram, Program, RetterProgram
from tests.real.wire import connect, fetch

Curl = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def proxy(
    request: pytest.FixtureRequest, application: ApplicationProgram, start_retter_once: StartRetter
) -> RetterProgram:
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed (pip install uvloop)")
    return start_retter_once("--upstream", application.upstream, "--loop", request.param)


@pytest.fixture
def run_curl(curl: str) -> Curl:
    def run(*arguments: str, data: bytes = b"", fails: int = 0) -> Any:
        done = subprocess.run(
            [curl, "--disable", "--silent", "--show-error", "--max-time", str(DEADLINE_S),
             "--noproxy", "", *arguments],
            input=data, capture_output=True, timeout=2 * DEADLINE_S, check=False,
        )  # fmt: skip
        assert done.returncode == fails, done.stderr.decode()
        return done

    return run


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, str]:
    """A file of a MiB, and its SHA-256."""
    data = os.urandom(1 << 20)
    path = tmp_path / "blob"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def url(proxy: RetterProgram, target: str = "/echo") -> str:
    return f"http://127.0.0.1:{proxy.port}{target}"


def field(echo: dict[str, Any], name: str) -> str | None:
    values = [value for known, value in echo["fields"] if known.lower() == name]
    return ", ".join(values) if values else None


def test_curl_http10(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl("--http1.0", "-i", url(proxy))
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower()
    echo = json.loads(body)
    assert echo["version"] == "HTTP/1.1"  # each side speaks its own version
    done = run_curl("--http1.0", url(proxy, "/download?bytes=300000&framing=chunked"))
    assert len(done.stdout) == 300_000  # without chunks, until the connection closes


def test_curl_http10_keep_alive(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl(
        "--http1.0", "-H", "Connection: keep-alive", "-w", "%{num_connects}\\n", "-o", "/dev/null",
        url(proxy), "-o", "/dev/null", url(proxy),
    )  # fmt: skip
    assert done.stdout.split() == [b"1", b"0"]


def test_curl_connection_is_kept_and_closed(proxy: RetterProgram, run_curl: Curl) -> None:
    twice = ("-w", "%{num_connects}\\n", "-o", "/dev/null", url(proxy), "-o", "/dev/null",
             url(proxy, "/download?bytes=100000&framing=close"))  # fmt: skip
    assert run_curl(*twice).stdout.split() == [b"1", b"0"]
    done = run_curl("-H", "Connection: close", *twice)
    assert done.stdout.split() == [b"1", b"1"]


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_curl_upload_expects_to_be_told_to_continue(
    proxy: RetterProgram, run_curl: Curl, blob: tuple[Path, str], method: str
) -> None:
    path, digest = blob
    # longer than any test: a curl that sends without having been told to would fail it
    wait = ("--expect100-timeout", str(4 * DEADLINE_S))
    done = run_curl(
        "-v",
        "-X",
        method,
        *wait,
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        f"@{path}",
        url(proxy),
    )
    assert b"< HTTP/1.1 100 Continue" in done.stderr
    echo = json.loads(done.stdout)
    assert (echo["method"], echo["length"], echo["sha256"]) == (method, 1 << 20, digest)


def test_curl_upload_in_chunks(
    proxy: RetterProgram, run_curl: Curl, blob: tuple[Path, str]
) -> None:
    path, digest = blob
    done = run_curl("-T", "-", "-H", "Expect:", url(proxy), data=path.read_bytes())
    echo = json.loads(done.stdout)
    assert (echo["method"], echo["sha256"]) == ("PUT", digest)
    assert field(echo, "transfer-encoding") == "chunked"
    assert field(echo, "content-length") is None


def test_curl_upload_of_a_form(
    proxy: RetterProgram, run_curl: Curl, blob: tuple[Path, str]
) -> None:
    done = run_curl("-F", f"file=@{blob[0]}", "-F", "name=value", url(proxy))
    assert json.loads(done.stdout)["length"] > 1 << 20


def test_curl_head(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl("--head", url(proxy, "/page"))
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: " in done.stdout and done.stdout.endswith(b"\r\n\r\n")


def test_curl_through_a_proxy_uses_the_absolute_form(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl("-x", url(proxy, ""), "http://shop.example/page?q=%41#part")
    echo = json.loads(done.stdout)
    assert (echo["target"], field(echo, "host")) == ("/page?q=%41", "shop.example")


def test_curl_connect_is_refused(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl("-p", "-x", url(proxy, ""), "-i", "http://shop.example/", fails=56)
    assert b"405" in done.stdout


def test_curl_paths_and_queries_are_untouched(proxy: RetterProgram, run_curl: Curl) -> None:
    for target in ("/a/../b/./c", "//x//", "/%2e%2E/%7euser", "/a?x=1&&y=%zz&=+?/", "/a;b=1,c"):
        done = run_curl("--path-as-is", "--globoff", url(proxy, target))
        assert json.loads(done.stdout)["target"] == target


def test_curl_trailers(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl("-i", url(proxy, "/trailers"))
    assert b"\r\nTrailer: X-Checksum\r\n" in done.stdout
    assert b"\r\n\r\nhello" in done.stdout
    # curl writes them where it writes the fields
    assert b"X-Checksum: 5d41402a" in done.stdout


def test_curl_sees_early_hints(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl("-i", url(proxy, "/hints"))
    assert done.stdout.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload")
    assert done.stdout.endswith(b"page")


def test_curl_large_cookies(proxy: RetterProgram, run_curl: Curl) -> None:
    cookies = "; ".join(f"name{number}={'v' * 4000}" for number in range(8))  # 32 KB
    echo = json.loads(run_curl("-H", f"Cookie: {cookies}", url(proxy)).stdout)
    assert field(echo, "cookie") == cookies
    done = run_curl("-i", "-H", f"X-Large: {'v' * 70_000}", url(proxy))
    assert done.stdout.startswith(b"HTTP/1.1 431 ")


def test_curl_many_in_parallel(proxy: RetterProgram, run_curl: Curl) -> None:
    done = run_curl(
        "--parallel",
        "--parallel-max",
        "20",
        "-w",
        "%{http_code}\\n",
        "-o",
        "/dev/null",
        url(proxy, "/page/[1-200]"),
    )
    assert done.stdout.split() == [b"200"] * 200


def test_curl_resumes_a_download(
    proxy: RetterProgram, run_curl: Curl, blob: tuple[Path, str]
) -> None:
    echo = json.loads(run_curl("-r", "100-199", url(proxy)).stdout)
    assert field(echo, "range") == "bytes=100-199"


# -- where it listens and where it goes ------------------------------------------------------------


@pytest.fixture
def behind_a_socket(short_path: Path, programs: list[Program]) -> ApplicationProgram:
    program = ApplicationProgram(f"unix:{short_path}/app.sock")
    programs.append(program)
    return program


def test_curl_over_unix_sockets_on_both_sides(
    behind_a_socket: ApplicationProgram,
    start_retter: StartRetter,
    run_curl: Curl,
    short_path: Path,
    loop_name: str,
) -> None:
    path = short_path / "retter.sock"
    proxy = start_retter(
        "--upstream", behind_a_socket.upstream, "--loop", loop_name, listen=f"unix:{path}"
    )
    assert proxy.addresses == [f"unix:{path}"]
    for _ in range(2):
        done = run_curl("--unix-socket", str(path), "http://shop.example/page")
        assert field(json.loads(done.stdout), "host") == "shop.example"
    done = run_curl(
        "--unix-socket",
        str(path),
        "-d",
        "a=1",
        "http://shop.example/",
        "-o",
        "/dev/null",
        "http://shop.example/download?bytes=3000000",
        "-w",
        "%{size_download}",
    )
    assert b"3000000" in done.stdout
    assert proxy.stop() == 0
    assert not path.exists()


def test_curl_over_ipv6_and_ipv4_to_one_port(
    application: ApplicationProgram, start_retter: StartRetter, run_curl: Curl, loop_name: str
) -> None:
    proxy = start_retter(
        "--upstream", application.upstream, "--loop", loop_name, "--listen", "[::1]:0", listen=":0"
    )
    everywhere, six = proxy.addresses
    port = everywhere.rpartition(":")[2]
    for where, peer in (
        (f"http://127.0.0.1:{port}/", "127.0.0.1"),
        (f"http://[::1]:{port}/", "::1"),
        (six + "/", "::1"),
    ):
        echo = json.loads(run_curl(where).stdout)
        assert field(echo, "x-real-ip") == peer
    assert six.startswith("http://[::1]:")


# -- what curl does not do -------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(proxy: RetterProgram) -> None:
    targets = [f"/page/{number}" for number in range(50)]
    with connect(proxy.port) as sock:
        for target in targets[:-1]:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        sock.sendall(f"GET {targets[-1]} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    bodies = [
        json.loads(b"{" + part.partition(b"\r\n\r\n{")[2])
        for part in data.split(b"HTTP/1.1 200 OK\r\n")[1:]
    ]
    assert [body["target"] for body in bodies] == targets


def test_request_trailers_reach_the_application(proxy: RetterProgram) -> None:
    with connect(proxy.port) as sock:
        sock.sendall(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
            b"Trailer: X-Sum\r\n\r\n3;ext=1\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n"
        )
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    echo = json.loads(data.partition(b"\r\n\r\n")[2])
    assert (echo["length"], echo["trailers"]) == (3, [["X-Sum", "6"]])


def test_a_client_that_speaks_nonsense_is_told_so(proxy: RetterProgram) -> None:
    for nonsense in (b"\x16\x03\x01\x02\0\1\0\1\xfc\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n",
                     b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"):  # fmt: skip
        with connect(proxy.port) as sock:
            sock.sendall(nonsense)
            assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert fetch(proxy.port, "GET", "/").status == 200
