"""The place of a process among several workers, and the memory that all of them share.

Workers are the processes of one RETTER (`--workers`). A worker's place is the number of the part of
the shared memory that it alone writes. While one RETTER takes over from another, both have workers,
so there are twice as many places as workers: the workers of one generation have the lower half, and
those of the next one the upper half.
"""

from dataclasses import dataclass

from retter.base.shared_memory import SharedMemory


@dataclass(frozen=True, slots=True, eq=False)
class WorkerPlace:
    """The place of a worker.

    Attributes:
        index: The number of the worker: 0 to `workers` - 1.
        workers: The number of workers of one generation.
        place: The number of its part of the shared memory: 0 to 2 * `workers` - 1.
        shared: The memory that all workers share.
        store_lock_fd: The lock of the folder of the shared store; -1: nothing is stored.
        memory_fd: Of the memory, for locks; -1: there is none, as in tests.
        store_is_lent: Workers of the process before use the shared store too, or did.
        store_set_aside: Why the supervisor has set a broken store aside; "" if it has not.
    """

    index: int
    workers: int
    place: int
    shared: SharedMemory
    store_lock_fd: int = -1
    memory_fd: int = -1
    store_is_lent: bool = False
    store_set_aside: str = ""

    @property
    def judgement(self) -> memoryview:
        """The memory for the shared state of the breaker, for all places."""
        return self.shared.judgement

    @property
    def leads(self) -> bool:
        """Whether this worker does the work that only one of them should do."""
        return self.index == 0
