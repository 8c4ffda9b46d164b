"""How many pages an operator's purge drops: in memory, on disk and near other workers, each once.

A page is a key of the store: all variants of a URL, for everyone or for one owner. This module does
no I/O. `now` is monotonic seconds.
"""

from collections.abc import Callable


class PurgeCount:
    """The count of one purge.

    Attributes:
        keys: The keys that were dropped in memory; a key may be there twice.
        others: The slot keys that were dropped near other workers.
        number: Tells this purge from others of this worker; -1: no other worker was asked.
        complete: Whether all workers have told what they had.
        until: When the wait for the count ends, monotonic seconds.
        is_over: Whether the count was told.
    """

    __slots__ = ("_done", "complete", "is_over", "keys", "number", "others", "until")

    def __init__(
        self,
        keys: list[bytes],
        until: float = 0.0,
        done: Callable[[int, bool], None] = lambda pages, complete: None,
    ) -> None:
        self.keys = keys
        self.others: set[bytes] = set()
        self.number = -1
        self.complete = True
        self.until = until
        self.is_over = False
        self._done = done

    def finish(self, pages: int, *, complete: bool = True) -> None:
        """Tell the number of pages, once.

        Args:
            complete: If not, it was at least that number.
        """
        if not self.is_over:
            self.is_over = True
            self._done(pages, complete and self.complete)

    def give_up(self) -> None:
        """Tell what is known: the pages that were in the memory of this process."""
        self.finish(len(set(self.keys)), complete=False)
