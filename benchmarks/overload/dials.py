"""Counts attempts to connect to a port where nothing listens.

The application cannot count those who find its port closed. As root on Linux a packet socket on the
loopback interface sees their first packets (SYN); the kernel's own counter of failed attempts,
which anybody may read, knows no ports, so other programs that dial into the void are counted too.
"""

import ctypes
import socket
import struct
from pathlib import Path
from typing import Final

ETH_P_IP: Final = 0x0800
PACKET_OUTGOING: Final = 4  # each packet passes loopback twice: leaving, then arriving
SO_ATTACH_FILTER: Final = 26
BUFFER_BYTES: Final = 1024 * 1024
PACKET_BYTES: Final = 64  # the filter keeps that much of each


def syn_filter(port: int) -> list[tuple[int, int, int, int]]:
    """Return a classic BPF program that keeps TCP packets to the port with SYN and without ACK."""
    return [
        (0x30, 0, 0, 9),  # A = protocol
        (0x15, 0, 7, 6),  # not TCP: drop
        (0xB1, 0, 0, 0),  # X = length of the IP header
        (0x48, 0, 0, 2),  # A = destination port
        (0x15, 0, 4, port),  # another: drop
        (0x50, 0, 0, 13),  # A = flags
        (0x54, 0, 0, 0x12),  # A &= SYN | ACK
        (0x15, 0, 1, 0x02),  # not SYN alone: drop
        (0x06, 0, 0, PACKET_BYTES),  # keep
        (0x06, 0, 0, 0),  # drop
    ]


class Dials:
    """Counts attempts to connect to a port of this machine from its making until `stop`."""

    def __init__(self, port: int) -> None:
        self._socket = _syn_socket(port)
        self._failed_before = failed_attempts()

    @property
    def exact(self) -> bool:
        """Tell whether other programs' attempts are kept apart."""
        return self._socket is not None

    def stop(self) -> int:
        """Return how many there were."""
        if self._socket is None:
            return failed_attempts() - self._failed_before
        with self._socket as packets:
            count = 0
            while True:
                try:
                    _, sender = packets.recvfrom(PACKET_BYTES)
                except BlockingIOError:
                    return count
                count += sender[2] != PACKET_OUTGOING


def failed_attempts() -> int:
    """Return how many attempts to connect have failed on this machine so far; 0 if unknown."""
    try:
        lines = Path("/proc/net/snmp").read_text().splitlines()
    except OSError:
        return 0
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("AttemptFails")])


def _syn_socket(port: int) -> socket.socket | None:
    """Return a packet socket that sees such packets alone, or None where that is not allowed."""
    if not hasattr(socket, "AF_PACKET"):
        return None
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except OSError:
        return None
    code = b"".join(struct.pack("HBBI", *step) for step in syn_filter(port))
    program = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of steps and, aligned, a pointer to them.
    header = struct.pack("HP", len(code) // 8, ctypes.addressof(program))
    try:
        packets.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        packets.setblocking(False)
        # Bound last, so that nothing unfiltered comes in.
        packets.bind(("lo", ETH_P_IP))
    except OSError:
        packets.close()
        return None
    return packets
