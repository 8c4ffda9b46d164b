"""The lock on the memory that workers share."""

import os

from retter.proxy.memory_lock import MemoryLock


def test_one_process_at_a_time_has_the_lock_until_it_ends() -> None:
    descriptor = os.memfd_create("lock")
    try:
        lock = MemoryLock(descriptor)
        assert lock.take()
        pid = os.fork()
        if not pid:
            os._exit(10 + MemoryLock(descriptor).take())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10, "it is not free"
        lock.give_back()
        pid = os.fork()
        if not pid:
            os._exit(10 + MemoryLock(descriptor).take())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
        assert lock.take(), "whoever had it has ended"
    finally:
        os.close(descriptor)


def test_without_other_processes_the_lock_is_free() -> None:
    lock = MemoryLock(-1)
    assert lock.take()
    lock.give_back()
