"""Event streams, and bodies that are larger than RETTER's memory may ever be."""

import http.client
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.real.conftest import StartRetter
from tests.real.gate import Gate
from tests.real.processes import ApplicationProgram, RetterProgram, eventually
from tests.real.wire import connect, fetch, read_until
from tests.support.tracing import untraced

pytestmark = untraced

MIB = 1 << 20
GROWTH_BYTES_MAX = 8 * MIB


def kernel_buffer_bytes_max() -> int:
    """Return what one connection's two socket buffers may grow to on this machine (tcp(7))."""
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{name}") for name in ("rmem", "wmem")]
    return sum(int(limit.read_text().split()[2]) for limit in limits)


# What two connections and the peers' own buffers may hold of a stream that nobody reads, and a
# stream that is certainly larger.
BUFFERED_BYTES_MAX = 2 * kernel_buffer_bytes_max() + 8 * MIB
SLOW_BYTES = BUFFERED_BYTES_MAX + 64 * MIB

PIECE = bytes(256 * 1024)


@pytest.fixture(params=["uvloop", "asyncio"])
def proxy(
    request: pytest.FixtureRequest, application: ApplicationProgram, start_retter: StartRetter
) -> RetterProgram:
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed (pip install uvloop)")
    return start_retter("--upstream", application.upstream, "--loop", request.param)


# -- server-sent events ---------------------------------------------------------------------------


def test_events_arrive_one_by_one(application: ApplicationProgram, proxy: RetterProgram) -> None:
    """Each event is sent only after the one before has arrived, so none can be held back."""
    gate = Gate(application, "sse")
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    connection.request("GET", f"/events?name={gate.name}&count=20")
    response = connection.getresponse()  # the head arrives before the first event
    assert response.getheader("content-type") == "text/event-stream"
    for number in range(20):
        gate.open_event(number)
        assert response.readline() == b"id: %d\n" % number
        assert response.readline() == b"data: %s\n" % (b"x" * (number * 1000))
        assert response.readline() == b"\n"
    assert response.read() == b""
    connection.close()


def test_events_end_for_the_application_when_the_reader_leaves(
    application: ApplicationProgram, proxy: RetterProgram
) -> None:
    gate, numbers = Gate(application, "left"), count()

    def unheard() -> int:
        number: int = fetch(application.port, "GET", "/figures").json["unheard"]
        return number

    def ended() -> bool:
        gate.open_event(next(numbers))  # it notices by writing
        return unheard() > before

    before = unheard()
    with connect(proxy.port) as sock:
        sock.sendall(f"GET /events?name={gate.name}&count=999 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        read_until(sock, b"\r\n\r\n")
        eventually(lambda: gate.waiting(0), "the stream goes on")
    eventually(ended, "the stream ends at the application, too")


# -- large bodies ---------------------------------------------------------------------------------


@pytest.fixture
def grows_little(proxy: RetterProgram) -> Iterator[RetterProgram]:
    """The proxy, warm, whose memory then grows by less than 8 MB at any moment of the test."""
    for target in (f"/download?bytes={8 * MIB}", f"/download?bytes={8 * MIB}&framing=chunked"):
        assert len(fetch(proxy.port, "GET", target).body) == 8 * MIB
    assert fetch(proxy.port, "POST", "/upload", body=bytes(8 * MIB)).json["length"] == 8 * MIB
    proxy.forget_peak()
    before = proxy.memory_bytes("VmRSS")
    yield proxy
    growth = proxy.memory_bytes("VmHWM") - before
    assert growth < GROWTH_BYTES_MAX, f"grew by {growth / MIB:.1f} MiB"


def download(port: int, target: str) -> int:
    """Read a whole body and drop it; return its size."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", target)
    response = connection.getresponse()
    assert response.status == 200
    buffer, total = bytearray(1 * MIB), 0
    while count := response.readinto(buffer):
        total += count
    connection.close()
    return total


def test_large_download(grows_little: RetterProgram) -> None:
    size = 1024 * MIB
    assert download(grows_little.port, f"/download?bytes={size}") == size


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_large_download_of_unknown_length(grows_little: RetterProgram, framing: str) -> None:
    size = 128 * MIB
    assert download(grows_little.port, f"/download?bytes={size}&framing={framing}") == size


def test_large_upload(grows_little: RetterProgram) -> None:
    size = 100 * MIB
    length = {"Content-Length": str(size)}
    pieces = (PIECE for _ in range(size // len(PIECE)))
    answer = fetch(grows_little.port, "POST", "/upload", length, pieces)
    assert answer.json["length"] == size


def test_large_upload_in_chunks(grows_little: RetterProgram) -> None:
    size = 100 * MIB
    pieces = (PIECE for _ in range(size // len(PIECE)))
    assert fetch(grows_little.port, "PUT", "/upload", body=pieces).json["length"] == size


def stands_still(figure: Callable[[], int]) -> int:
    """Wait until a figure that grows has stopped growing, and return it."""
    seen: list[int] = []

    def same() -> bool:
        seen.append(figure())
        return seen[-1] > 0 and len(seen) > 10 and len(set(seen[-10:])) == 1

    eventually(same, "it stands still")
    return seen[-1]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_download_by_a_slow_reader_waits_for_it(
    application: ApplicationProgram, grows_little: RetterProgram, framing: str
) -> None:
    size = SLOW_BYTES

    def sent() -> int:
        number: int = fetch(application.port, "GET", "/figures").json["sent"]
        return number

    before = sent()
    connection = http.client.HTTPConnection("127.0.0.1", grows_little.port, timeout=30)
    connection.request("GET", f"/download?bytes={size}&framing={framing}")
    response = connection.getresponse()
    assert stands_still(lambda: sent() - before) < BUFFERED_BYTES_MAX
    total = len(response.read(1000))
    assert fetch(grows_little.port, "GET", "/echo").status == 200  # the others are not held up
    while piece := response.read(1 * MIB):
        total += len(piece)
    assert total == size
    connection.close()


def test_large_upload_to_a_slow_application_waits_for_it(
    application: ApplicationProgram, grows_little: RetterProgram
) -> None:
    handed_over, gate = [0], Gate(application, "upload")
    size = SLOW_BYTES // len(PIECE) * len(PIECE)

    def pieces() -> Iterator[bytes]:
        for _ in range(size // len(PIECE)):
            yield PIECE
            handed_over[0] += len(PIECE)

    lengths: list[int] = []

    def upload() -> None:
        length = {"Content-Length": str(size)}
        answer = fetch(grows_little.port, "POST", f"/upload?gate={gate.name}", length, pieces())
        lengths.append(answer.json["length"])

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        assert stands_still(lambda: handed_over[0]) < BUFFERED_BYTES_MAX
    finally:
        gate.open()
        thread.join()
    assert lengths == [size]
