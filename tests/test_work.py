"""What is counted as the work of a call."""

import gc

from tests.support.work import instructions_of


class Garbage:
    """Refers to itself, so that only the collector finds it, and does something then."""

    collected = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Garbage.collected += 1


def allocate() -> list[list[int]]:
    """Make so many objects that the collector would run more than once."""
    return [[] for _ in range(5 * gc.get_threshold()[0])]


def test_the_garbage_of_others_is_no_work_of_a_call() -> None:
    gc.collect()
    alone = instructions_of(allocate)
    for _ in range(100):
        Garbage()
    before = Garbage.collected
    assert instructions_of(allocate) == alone
    assert gc.isenabled()
    gc.collect()
    assert Garbage.collected > before, "there was some"
