"""The secrets of a process: nobody else can compute hashes that are keyed with them.

A process that takes over has the secrets of the process before it, or begins with new ones.
"""

import json
import os
from dataclasses import dataclass, field
from typing import Final

SECRET_BYTES: Final = 32


def _new() -> bytes:
    return os.urandom(SECRET_BYTES)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Random octets, each for one use."""

    owner: bytes = field(default_factory=_new, repr=False)  # owners and marks of sessions
    tickets: bytes = field(default_factory=_new, repr=False)
    clients: bytes = field(default_factory=_new, repr=False)  # numbers of addresses
    public: bytes = field(default=b"", repr=False)  # of a disk; empty: the owner's

    def packed(self) -> bytes:
        """Return the secrets as octets."""
        return json.dumps(
            [one.hex() for one in (self.owner, self.tickets, self.clients, self.public)]
        ).encode()


def unpacked_secrets(octets: bytes) -> Secrets:
    """Return the secrets of another process.

    Raises:
        ValueError: The octets are not secrets.
    """
    try:
        owner, tickets, clients, public = map(bytes.fromhex, json.loads(octets))
    except (TypeError, ValueError):
        raise ValueError("no secrets") from None
    if min(map(len, (owner, tickets, clients))) < SECRET_BYTES // 2:
        raise ValueError("no secrets")
    return Secrets(owner, tickets, clients, public)
