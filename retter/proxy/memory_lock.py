"""A lock that one of several workers has at a time: a lock of the kernel on the memory they share.

It ends with the process that has it, however that ends. Nobody waits for it: a worker that is
stopped while it has it must not stop the others.
"""

import fcntl

# The first octet stands for the memory.
_LENGTH, _START = 1, 0


class MemoryLock:
    """The lock.

    Args:
        descriptor: Of the memory; -1: no other process has it, so the lock is always free.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._has = False

    def take(self) -> bool:
        """Take the lock; return False if another process has it."""
        try:
            if self._descriptor >= 0:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _LENGTH, _START)
        except OSError:
            return False
        self._has = True
        return True

    def give_back(self) -> None:
        """Give the lock back, if this process has it."""
        if self._has and self._descriptor >= 0:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, _LENGTH, _START)
        self._has = False
