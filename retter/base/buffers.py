"""The memory that the bodies of all requests and answers may wait in, as one budget.

Whatever holds octets takes them here first and gives them back when they have gone on, whichever
way that was. What the budget refuses is passed on as it comes.
"""

# A body may hold a quarter of what is free at that moment (the dynamic thresholds of switches,
# Choudhury and Hahne 1998). So when memory is short, those that hold much are passed on first, and
# those that need little, as forms do, still find some: a few large bodies cannot take all of it.
FREE_SHARE = 4


class BufferBudget:
    """A number of octets that is taken and given back.

    Args:
        bytes_max: 0 refuses everything: bodies are passed on as they come.
    """

    __slots__ = ("bytes_max", "refused", "used")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0  # octets
        self.refused = 0  # times that there was too little

    def take(self, held: int, more: int, each_max: int) -> bool:
        """Take `more` octets for a body that holds `held`, if it may have them.

        Args:
            each_max: Octets that one such body may hold at most.
        """
        if held + more > each_max:
            return False
        if held + more > (self.bytes_max - self.used) // FREE_SHARE:
            self.refused += 1
            return False
        self.used += more
        return True

    def give_back(self, octets: int) -> None:
        """Return octets that were taken."""
        assert octets <= self.used, "what is given back has been taken"
        self.used -= octets


# A piece takes 40 octets beside its own. A peer may send two at a time, and would have twenty times
# the memory that it is counted for.
PIECE_BYTES_MIN = 1024


def add_piece(pieces: list[bytes], data: bytes) -> None:
    """Append a piece of a body; small ones are joined, so that few are kept."""
    if pieces and len(pieces[-1]) < PIECE_BYTES_MIN:
        pieces[-1] += data
    else:
        pieces.append(data)
