"""One memory budget for all buffered bodies of requests and responses.

Code that buffers bytes takes them from the budget first and gives them back when they have been
passed on or dropped. What the budget refuses is passed on as it arrives.
"""

# A body may take a quarter of what is free at that moment (the dynamic thresholds of switches,
# Choudhury and Hahne 1998). So when memory is short, large bodies are passed on first, and small
# ones, such as forms, are still buffered: a few large bodies cannot take all of it.
FREE_SHARE = 4

# The bodies of one client may take half of the memory together, however many connections it has. As
# much is left for others. What it asks for beyond that is passed on as slowly as it reads.
CLIENT_SHARE = 2


class BufferBudget:
    """A number of bytes that is taken and given back.

    Args:
        bytes_max: 0 refuses everything: bodies are passed on as they arrive.
    """

    __slots__ = ("_by_client", "bytes_max", "refused", "used")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0  # octets
        self.refused = 0  # times that a body got less than it asked for
        # Octets by client, of clients that have buffered bodies.
        self._by_client: dict[int, int] = {}

    def take(self, taken: int, more: int, each_max: int, client: int = 0) -> bool:
        """Take `more` octets for a body that holds `taken`, if it may have them.

        Args:
            each_max: Octets that one such body may hold at most.
            client: The number of the client (client_id.py), which has a share of its own; 0 if
                it is not known.
        """
        if taken + more > each_max:
            return False
        theirs = self._by_client.get(client, 0) + more if client else 0
        if (
            taken + more > (self.bytes_max - self.used) // FREE_SHARE
            or theirs > self.bytes_max // CLIENT_SHARE
        ):
            self.refused += 1
            return False
        self.used += more
        if client:
            self._by_client[client] = theirs
        return True

    def give_back(self, octets: int, client: int = 0) -> None:
        """Return octets that were taken for that client."""
        assert octets <= self.used, "what is given back has been taken"
        self.used -= octets
        if client and octets:
            left = self._by_client[client] - octets
            assert left >= 0, "and by whoever gives it back"
            if left:
                self._by_client[client] = left
            else:
                del self._by_client[client]


# A piece takes 40 bytes besides its own. A peer may send two bytes at a time, and would take twenty
# times the memory that is counted for it.
PIECE_BYTES_MIN = 1024


def add_piece(pieces: list[bytes], data: bytes) -> None:
    """Append a piece of a body. Small pieces are joined, so that few are kept."""
    if pieces and len(pieces[-1]) < PIECE_BYTES_MIN:
        pieces[-1] += data
    else:
        pieces.append(data)
