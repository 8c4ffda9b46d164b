"""What was learnt outlives the process beside the store: of the application, and of its sessions.

Of the application it is used again if it is younger than an hour: it may have been changed since.
The names of session cookies, the values of them that many people share, and which sessions the
application has begun hold as long as the store does: without the names nobody's own pages would be
found again, and without the sessions their visitors would be strangers (turns.py).
"""

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from retter.breaker import CircuitBreaker
from retter.breaker.learnt import learnt, relearn
from retter.config.settings import Settings
from retter.store.owner import OWNER_BYTES, OwnerRules
from retter.store.sessions import NAMES_LEARNT_MAX, SHARED_MAX

if TYPE_CHECKING:
    from retter.disk.shelf import DiskShelf

FILE: Final = "learnt"
BYTES_MAX: Final = 1024 * 1024  # a file that is larger is none of ours

SAVE_EVERY_S: Final = 10.0
AGE_MAX_S: Final = 3600.0

# Sessions that are written down, of those used last: 40 KB, if one of them is new.
SESSIONS_MAX: Final = 2048


class LearntKeeper:
    """Writes what was learnt every ten seconds, and at the end."""

    def __init__(
        self, disk: "DiskShelf", breaker: CircuitBreaker, rules: OwnerRules, settings: Settings
    ) -> None:
        self._disk = disk
        self._breaker = breaker
        self._rules = rules
        self._upstream = settings.upstream
        self._due_at = 0.0
        self._written = b""

    def tick(self, now: float) -> None:
        """Write if it is time to."""
        if now >= self._due_at:
            self._due_at = now + SAVE_EVERY_S
            data = self._said()
            if data != self._written:
                self._written = data
                self._disk.write_soon(FILE, _dated(data, self._disk.wall()))

    def save(self) -> None:
        """Write it now, and wait for it."""
        self._disk.write_now(FILE, _dated(self._said(), self._disk.wall()))

    def _said(self) -> bytes:
        seen = self._rules.seen
        said: dict[str, Any] = {
            "upstream": self._upstream,
            "application": learnt(self._breaker.circuit),
            "names": [_text(name) for name in sorted(seen.names)],
            "shared": [_text(one) for one in seen.shared],
            "sessions": seen.known.issued(SESSIONS_MAX),
        }
        return json.dumps(said).encode()

    def restore(self, now: float) -> bool:
        """Begin with what the process before has written; whether that was young enough."""
        try:
            said = json.loads(self._disk.read_file(FILE, BYTES_MAX))
            for name in said["names"][:NAMES_LEARNT_MAX]:
                self._rules.seen.learn_name(_octets(name))
            for one in said["shared"][:SHARED_MAX]:
                self._rules.seen.shared[_owner(one)] = None
            for mark in said["sessions"][:SESSIONS_MAX]:
                self._rules.seen.known.restore(int(mark))
            age_s = max(0.0, self._disk.wall() - float(said["at"]))
            if age_s > AGE_MAX_S or said["upstream"] != self._upstream:
                return False
            return relearn(self._breaker.circuit, said["application"], age_s, now)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False  # there is none, or it is none


def _dated(data: bytes, wall: float) -> bytes:
    return b'{"at": %.1f, %b' % (wall, data[1:])


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _owner(text: str) -> bytes:
    owner = _octets(text)
    if len(owner) != OWNER_BYTES:
        raise ValueError
    return owner
