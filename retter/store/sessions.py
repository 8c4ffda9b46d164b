"""Observations about sessions: names that the application sets, values that many people share.

That a cookie has a session's name says little: `session=light` may be a setting. So a name counts
for sure once the application itself has set it to something that may be a secret, and a value does
not count any more once it has turned out to be no secret: given to two visitors, or sent by many.

Everything here is bounded, and what is forgotten only makes RETTER more careful. It is kept as long
as the store. No value is kept, only keyed hashes (owner.py).
"""

from collections import OrderedDict
from typing import Final

from retter.base.client_id import mark_of
from retter.store.known_sessions import KnownSessions

# A site has some few; a stranger may have many set where the name depends on the host (Drupal).
# What comes after these is not learnt.
NAMES_LEARNT_MAX: Final = 256
NAME_BYTES_LEARNT_MAX: Final = 128

# Values that the application has set lately, to see one set twice: two visitors of the same hour
# mostly get the same flag. 100 bytes each.
ISSUED_MAX: Final = 4096

# Sessions whose clients are counted: those seen lately. At most 1 KB each.
WATCHED_MAX: Final = 2048
# More addresses than that in such a time are many people. One person has home, office and some
# cells of a mobile network.
CLIENTS_MAX: Final = 16

# Values known to be shared. The oldest is forgotten, and noticed again.
SHARED_MAX: Final = 1024


class SessionsSeen:
    """Observations of sessions in responses and requests."""

    __slots__ = ("_clients", "_issued", "known", "names", "shared")

    def __init__(self) -> None:
        self.names: set[bytes] = set()  # session cookies that the application sets
        self.shared: dict[bytes, None] = {}  # keyed hashes of what is no session; oldest first
        self.known = KnownSessions()
        self._issued: OrderedDict[bytes, None] = OrderedDict()
        # Mostly one client each, whom a set would make 200 bytes larger.
        self._clients: OrderedDict[bytes, int | set[int]] = OrderedDict()

    def learn_name(self, name: bytes) -> bool:
        """Note a name that the application has set; whether it was unknown."""
        if (
            name in self.names
            or len(self.names) >= NAMES_LEARNT_MAX
            or len(name) > NAME_BYTES_LEARNT_MAX
        ):
            return False
        self.names.add(name)
        return True

    def issued(self, session: bytes) -> bool:
        """Note a session begun for a visitor who did not have it; whether it is shared now.

        Args:
            session: The keyed hash that stands for it as an owner.
        """
        if session in self._issued:
            return self._share(session)
        self._issued[session] = None
        if len(self._issued) > ISSUED_MAX:
            self._issued.popitem(last=False)
        return False

    def all_issued(self) -> list[bytes]:
        """Return the sessions begun lately: for another process (handover.py)."""
        return list(self._issued)

    def restore_issued(self, session: bytes) -> None:
        """Know a session that was begun in another process."""
        if len(self._issued) < ISSUED_MAX:
            self._issued[session] = None

    def used_by(self, session: bytes, client: str) -> bool:
        """Note who uses a session; whether it is shared now.

        Args:
            session: The keyed hash that stands for it as an owner.
            client: The client's address; of IPv6 its first half counts, which is one household.
        """
        mark = mark_of(client)
        clients = self._clients.get(session)
        if clients is None:
            self._clients[session] = mark
            if len(self._clients) > WATCHED_MAX:
                self._clients.popitem(last=False)
            return False
        if isinstance(clients, int):
            if clients == mark:
                return False
            clients = self._clients[session] = {clients}
        if mark in clients:
            return False
        clients.add(mark)
        self._clients.move_to_end(session)
        if len(clients) <= CLIENTS_MAX:
            return False
        del self._clients[session]
        return self._share(session)

    def _share(self, session: bytes) -> bool:
        if session in self.shared:
            return False
        self.shared[session] = None
        if len(self.shared) > SHARED_MAX:
            del self.shared[next(iter(self.shared))]
        return True
