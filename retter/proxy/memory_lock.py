"""A lock of the kernel on the memory that the workers share: one worker has it at a time.

The kernel releases it when its process ends. No worker waits for it, because a worker may be
stopped while it has the lock.
"""

import fcntl

# The first octet is locked in place of the whole memory.
_LENGTH, _START = 1, 0


class MemoryLock:
    """The lock.

    Args:
        descriptor: The memory's; -1: it is not shared, so the lock is always free.
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
