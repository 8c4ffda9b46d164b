"""What the commands make of a server that is no admin listener, or never comes to an end."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from retter.cli import main
from retter.config.units import parse_listen
from retter.control.client import AdminClient, Unreachable

Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that starts a server; it returns the address."""
    opened: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)

        def run() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, suppress(OSError):
                        read_request(client)
                        answer(client)

        threading.Thread(target=run, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in opened:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_request(client: socket.socket) -> None:
    """Read all of it: a connection closed with unread bytes is reset, and the answer is lost."""
    with client.makefile("rb") as stream:
        length = 0
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        stream.read(length)


def answers(document: bytes, status: bytes = b"200 OK") -> Callable[[socket.socket], None]:
    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(document))
    return lambda client: client.sendall(head + document)


@pytest.mark.parametrize("framing", [b"Content-Length: 99999999\r\n", b""])
def test_an_answer_that_never_ends_is_given_up(serve: Serve, framing: bytes) -> None:
    def drip(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        pause = threading.Event()
        while not pause.wait(0.01):
            client.sendall(b" ")

    client = AdminClient(parse_listen(serve(drip)), timeout_s=1.0)
    with pytest.raises(Unreachable, match="no whole answer within 2 s"):
        client.state()


@pytest.mark.parametrize("word", ["status", "why /", "purge /", "circuit open", "pause", "top"])
@pytest.mark.parametrize(
    "document",
    [b"{}", b'{"state": "ok", "version": "7", "situation": "fine"}', b"[" * 100_000],
    ids=["empty", "of another program", "nested"],
)
def test_another_program_is_told_from_retter(
    serve: Serve, document: bytes, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = serve(answers(document))
    assert main([*word.split(), "--admin", where]) == 1
    assert capsys.readouterr().err == (
        f"retter: the server at {where} is not an admin listener of RETTER: see --admin\n"
    )


def test_another_program_does_not_steer_the_terminal(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    where = serve(answers(b'{"error": "\\u001b[31mred\\n\\nand more"}', b"400 Bad Request"))
    assert main(["status", "--admin", where]) == 2
    assert capsys.readouterr().err == "retter: status: ?[31mred  and more\n"
