"""Sending abuse over loopback, and the CPU time that it takes at the other end."""

import contextlib
import socket
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.abuse.kinds import Kind

CONNECTIONS: Final = 8
TIMEOUT_S: Final = 5.0
_ANSWER: Final = b"HTTP/1.1 "


class Attacker:
    """One connection that is opened again when it is closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._unread = b""
        self.sent = 0  # octets
        self.answered = 0

    def send(self, message: bytes, piece: int) -> None:
        """Send a message as far as it is taken."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._unread = b""
        at = 0
        try:
            while at < len(message):
                taken = self._socket.send(message[at : at + piece] if piece else message[at:])
                at += taken
        except ConnectionError:
            pass  # it has been refused; the answer may still be there
        self.sent += at

    def receive(self, answers: int) -> None:
        """Wait for so many answers, or for the connection's end."""
        while answers and self._socket is not None:
            try:
                data = self._socket.recv(256 * 1024)
            except OSError:  # closed, or nothing comes
                data = b""
            if not data:
                self.close()
                return
            data = self._unread + data
            found = data.count(_ANSWER)
            self._unread = data[-len(_ANSWER) + 1 :]
            answers -= found
            self.answered += found

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def cpu_s(pids: Sequence[int]) -> float:
    """Return the CPU time of some processes, to the microsecond."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            # clock_getcpuclockid(3): the clock of another process (Linux).
            total += time.clock_gettime((~pid << 3) | 2)
    return total


class Cost:
    """The cost of one kind at one peer."""

    def __init__(self, cpu_s: float, sent: int, answers: int) -> None:
        self.kb = sent / 1000
        self.answers = answers
        self.ms_per_kb = 1000 * cpu_s / self.kb if sent else float("inf")


def attack(kind: Kind, port: int, pids: Sequence[int], seconds: float, first: int) -> Cost:
    """Send a kind of abuse for so long.

    Args:
        first: The number of the first message.
    """
    attackers = [Attacker(port) for _ in range(CONNECTIONS)]
    number = first
    began_s = cpu_s(pids)
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            for attacker in attackers:
                attacker.send(kind.message(number), kind.piece)
                number += 1
            for attacker in attackers:
                attacker.receive(kind.answers)
        used_s = cpu_s(pids) - began_s
    finally:
        for attacker in attackers:
            attacker.close()
    sent = sum([attacker.sent for attacker in attackers])
    return Cost(used_s, sent, sum([attacker.answered for attacker in attackers]))
