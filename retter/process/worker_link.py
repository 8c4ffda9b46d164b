"""Messages between the supervisor and a worker: one in each packet of a socket pair.

The pair keeps message boundaries (SOCK_SEQPACKET). Each side notices when the other one has ended,
in whatever way.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Final, NamedTuple

# A message is a word and at most a line of text.
MESSAGE_BYTES_MAX: Final = 4096


class Kind(IntEnum):
    """The kind of a message."""

    # from a worker
    READY = 1  # it serves
    FAILED = 2  # it cannot serve: why; the operator has to change something
    RELOADED = 3
    NOT_RELOADED = 4  # why
    DRAINING = 5  # it was asked to end, but not by the supervisor
    CLOSED = 6  # it writes nothing new to the shared store
    TAKE_OVER = 7  # the worker got SIGUSR2, which is for the supervisor
    # to a worker
    RELOAD = 16
    DRAIN = 17
    # Write nothing new to the shared store: others may store by other rules from now on. What is
    # stored meanwhile waits.
    CLOSE_STORE = 18
    # All store by the same rules again, or by rules that allow what has waited to be shown. If a
    # worker gets DRAIN instead, because another process serves, what has waited is dropped.
    OPEN_STORE = 19
    LEAVE_STORE = 20  # it is broken: why


class Message(NamedTuple):
    """One message."""

    kind: Kind
    text: str = ""


def packed(message: Message) -> bytes:
    """Return a message as octets; a text that is too long is cut off."""
    return bytes([message.kind]) + message.text.encode("utf-8", "replace")[: MESSAGE_BYTES_MAX - 1]


def unpacked(octets: bytes) -> Message:
    """Return the message in a packet.

    Raises:
        ValueError: It is none.
    """
    if not octets:
        raise ValueError("an empty message")
    return Message(Kind(octets[0]), octets[1:].decode("utf-8", "replace"))


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new link, which never block."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def send(end: socket.socket, message: Message) -> None:
    """Send a message. One that the other side does not take is lost: it hangs or has ended."""
    with suppress(OSError):
        end.send(packed(message), socket.MSG_NOSIGNAL)


def received(end: socket.socket) -> list[Message] | None:
    """Return the messages that have come; None if the other side has ended."""
    found: list[Message] = []
    while True:
        try:
            octets = end.recv(MESSAGE_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return found
        except OSError:
            return None
        if not octets:
            return found or None
        found.append(unpacked(octets))


class WorkerLink:
    """The worker's end.

    Attributes:
        on_message: Called with each message from the supervisor.
        on_end: Called when the supervisor has ended.
    """

    def __init__(self, end: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._end = end
        self._loop = loop
        self.on_message: Callable[[Message], None] = lambda message: None
        self.on_end: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Read on the event loop from now on."""
        self._loop.add_reader(self._end, self._on_readable)

    def tell(self, kind: Kind, text: str = "") -> None:
        """Send a message to the supervisor."""
        send(self._end, Message(kind, text))

    def close(self) -> None:
        """Stop reading."""
        self._loop.remove_reader(self._end)

    def _on_readable(self) -> None:
        messages = received(self._end)
        if messages is None:
            self.close()
            self.on_end()
            return
        for message in messages:
            self.on_message(message)
