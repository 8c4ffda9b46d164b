"""An application that answers before it has read an upload, and clients that send first."""

import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import Callable

import pytest

from tests.real.inside import port_of, proxy_for, run
from tests.real.processes import DEADLINE_S, end_accepting

SIZE = 24 * 2**20  # more than all sockets on the way can hold
ANSWER = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nlog in"


def upload(port: int, *, chunked: bool) -> tuple[int, bytes]:
    """Send all of it, and then look for the answer, as most libraries do."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    block = b"x" * 2**20
    body = (block for _ in range(SIZE // len(block)))
    headers = {} if chunked else {"Content-Length": str(SIZE)}
    client.request("POST", "/upload", body, headers, encode_chunked=chunked)
    answer = client.getresponse()
    return answer.status, answer.read()


def serve(sock: socket.socket) -> None:
    with sock:
        sock.settimeout(DEADLINE_S)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        sock.sendall(ANSWER)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(65536):
                pass


def serve_and_reset(sock: socket.socket) -> None:
    """Answer, and close while more arrives: what comes then is answered with a reset."""
    with sock:
        sock.settimeout(DEADLINE_S)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        sock.sendall(ANSWER)


def accept(listener: socket.socket, serving: Callable[[socket.socket], None] = serve) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # closed in the end
        threading.Thread(target=serving, args=(sock,), daemon=True).start()


@pytest.mark.parametrize("serving", [serve, serve_and_reset])
@pytest.mark.parametrize("chunked", [False, True])
def test_its_answer_reaches_a_client_that_sends_on(
    chunked: bool, serving: Callable[[socket.socket], None], loop_name: str
) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=accept, args=(listener, serving), daemon=True)
            thread.start()
            upstream = f"127.0.0.1:{listener.getsockname()[1]}"
            async with proxy_for(upstream) as proxy:
                got = await asyncio.to_thread(upload, port_of(proxy), chunked=chunked)
                assert got == (401, b"log in")
            end_accepting(listener, thread)

    run(main(), loop_name)


def test_a_refusal_of_our_own_does_too(loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for("127.0.0.1:1", request_body_bytes_max=1000) as proxy:
            status, text = await asyncio.to_thread(upload, port_of(proxy), chunked=False)
            assert status == 413 and b"too large" in text

    run(main(), loop_name)
