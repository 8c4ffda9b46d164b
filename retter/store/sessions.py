"""Observations about sessions: names that the application sets, values that many people share.

The name of a session cookie alone proves little: `session=light` may be a setting. So a name counts
as that of a session for sure when the application itself has set it to a value that may be a
secret. A value does not count any more if it cannot be a secret: the application has set it for two
visitors, or many clients send it.

All tables here are bounded. When something is forgotten, RETTER only becomes more careful. The
observations are kept as long as the store. No value is kept, only keyed hashes (owner.py).
"""

from collections import OrderedDict
from typing import Final

from retter.base.client_id import mark_of
from retter.store.known_sessions import KnownSessions, Told

# A site has only a few. But if the name depends on the host (Drupal), a stranger can cause many to
# be set. Names beyond this number are not learnt.
NAMES_LEARNT_MAX: Final = 256
NAME_BYTES_LEARNT_MAX: Final = 128

# Values that the application has set recently, to notice a value that is set twice: two visitors in
# the same hour usually get the same flag. 100 bytes each.
ISSUED_MAX: Final = 4096

# Sessions whose clients are counted: those used recently. At most 1 KB each. They are kept in two
# halves: when the young one is full, it becomes the old one. A session that is used by one client
# more goes to the young one. An OrderedDict, which would forget one session at a time, takes 1,300
# instructions of the processor more for each new session.
WATCHED_MAX: Final = 2048
# If a value comes from more addresses than this in that time, many people share it. One person has
# the addresses of home, office and some cells of a mobile network.
CLIENTS_MAX: Final = 16

# Values that are known to be shared. If the oldest is forgotten, it is noticed again.
SHARED_MAX: Final = 1024


class SessionsSeen:
    """Observations of sessions in responses and requests.

    Attributes:
        told: Receives each observation.
    """

    __slots__ = ("_clients", "_issued", "_old_clients", "known", "names", "shared", "told")

    def __init__(self) -> None:
        self.names: set[bytes] = set()  # session cookies that the application sets
        self.shared: dict[bytes, None] = {}  # keyed hashes of shared values; oldest first
        self.known = KnownSessions()
        self.told: Told | None = None
        self._issued: OrderedDict[bytes, None] = OrderedDict()
        # Most sessions have one client. To keep it in a set would take 200 bytes more.
        self._clients: dict[bytes, int | set[int]] = {}
        self._old_clients: dict[bytes, int | set[int]] = {}

    def learn_name(self, name: bytes) -> bool:
        """Note a name that the application has set; return whether it was unknown."""
        if (
            name in self.names
            or len(self.names) >= NAMES_LEARNT_MAX
            or len(name) > NAME_BYTES_LEARNT_MAX
        ):
            return False
        self.names.add(name)
        if self.told is not None:
            self.told.name(name)
        return True

    def issued(self, session: bytes) -> bool:
        """Note a session that was set for a visitor who did not have it.

        Args:
            session: The keyed hash that is the owner for this session.

        Returns:
            Whether the value is newly known to be shared.
        """
        if self.told is not None:
            self.told.begun(session)
        if session in self._issued:
            return self._share(session)
        self._issued[session] = None
        if len(self._issued) > ISSUED_MAX:
            self._issued.popitem(last=False)
        return False

    def all_issued(self) -> list[bytes]:
        """Return the sessions that were begun recently, for another process (handover.py)."""
        return list(self._issued)

    def restore_issued(self, session: bytes) -> None:
        """Note a session that was begun in another process."""
        if len(self._issued) < ISSUED_MAX:
            self._issued[session] = None

    def used_by(self, session: bytes, client: str) -> bool:
        """Note the client that uses a session.

        Args:
            session: The keyed hash that is the owner for this session.
            client: The client's address. Of an IPv6 address, only the first half counts, which is
                one household.

        Returns:
            Whether the value is newly known to be shared.
        """
        mark = mark_of(client)
        clients = self._clients.get(session)
        if clients is None:
            # Nearly all that are not in the young half are new: `in` takes less than `pop`.
            clients = self._old_clients.pop(session) if session in self._old_clients else mark
            if len(self._clients) >= WATCHED_MAX // 2:
                self._old_clients, self._clients = self._clients, {}
            self._clients[session] = clients
        if clients == mark:
            return False
        if isinstance(clients, int):
            clients = self._clients[session] = {clients}
        if mark in clients:
            return False
        clients.add(mark)
        if len(clients) <= CLIENTS_MAX:
            return False
        del self._clients[session]
        return self._share(session)

    def _share(self, session: bytes) -> bool:
        if session in self.shared:
            return False
        if self.told is not None:
            self.told.shared(session)
        self.shared[session] = None
        if len(self.shared) > SHARED_MAX:
            del self.shared[next(iter(self.shared))]
        return True
