"""Tickets that every worker understands: a ticket is good for one place, in any worker.

All workers have one secret. Each issues its own numbers: a number modulo the number of workers is
the worker that issued it. A worker marks the tickets that stand in its queue and those
that it has let in; it reads the marks of all.

Two workers may get the same ticket at the same moment. So a worker first marks it and then looks at
the marks of the others: a worker that sees another mark removes its own, and the request counts as
one without a ticket. Thus at most one of them uses it, and none waits for another one. (A processor
shows a mark to the others within a fraction of a microsecond, and to look takes longer.)
"""

from typing import Final

from retter.breaker.tickets import TICKETS_MAX, Tickets
from retter.judgement.memory import ISSUED, TICKET_MARKS, Memory

assert TICKET_MARKS == TICKETS_MAX

# A mark is twice the lap (how often all numbers have been used, from 1 to 127), and one more if the
# ticket is used. So old marks need not be removed.
_LAPS: Final = 127


class SharedTickets(Tickets):
    """`Tickets` whose numbers and marks are in the memory of all workers."""

    __slots__ = ("_claimed", "_index", "_marks", "_memory", "_others", "_own")

    def __init__(self, secret: bytes, memory: Memory, index: int) -> None:
        super().__init__(secret, 0.0)  # all workers count from the start of the machine
        self._memory = memory
        self._index = index
        self._marks = [slot.marks for slot in memory.slots]
        self._own = self._marks[index]
        self._others = [marks for marks in self._marks if marks is not self._own]
        self._claimed = -1  # the ticket of the request that is decided now
        self._issued = memory.words[memory.slots[index].word + ISSUED]
        self._forget_queue()

    def _forget_queue(self) -> None:
        """Forget the queue of the previous process of this worker."""
        if self._issued_by_any():
            before = bytes(self._own)
            if any(before):
                self._own[:] = before.translate(_WITHOUT_STANDING)

    def _issued_by_any(self) -> bool:
        words = self._memory.words
        return any(words[slot.word + ISSUED] for slot in self._memory.slots)

    def issue(self, client: int, now: float) -> bytes:
        """Return a new ticket for a client."""
        memory = self._memory
        serial = self._issued
        self._issued = serial + 1
        memory.words[memory.slots[self._index].word + ISSUED] = self._issued
        return self._ticket(serial * memory.workers + self._index, client, now)

    def claim(self, number: int) -> bool:
        """Take a ticket for the request that is decided now; `settle` ends that.

        Return False if it is in any queue, is used, or another worker takes it just now.
        """
        self.settle()
        if self._mark_of(number) != 0:
            return False
        at = number % TICKETS_MAX
        self._own[at] = 2 * _lap(number)
        if self._is_marked_elsewhere(number):
            self._own[at] = 0
            return False
        self._claimed = number
        return True

    def settle(self) -> None:
        """Return the ticket that was claimed last, unless it is in the queue or used."""
        if self._claimed >= 0:
            self._own[self._claimed % TICKETS_MAX] = 0
            self._claimed = -1

    def stand(self, number: int) -> bool:
        """Add a ticket to the queue; return False if it is in any queue already, or is used."""
        if number != self._claimed and not self.claim(number):
            return False
        self._claimed = -1
        self._standing.add(number)
        return True

    def stands(self, number: int) -> bool:
        """Return whether a ticket is in the queue of any worker."""
        return self._mark_of(number) != 0

    def leave(self, number: int) -> None:
        """Note that the holder left the queue without a place."""
        if number in self._standing:
            self._standing.discard(number)
            self._own[number % TICKETS_MAX] = 0

    def spend(self, number: int) -> None:
        """Note that the holder got a place: the ticket is used."""
        self._standing.discard(number)
        if number == self._claimed:
            self._claimed = -1
        if self._is_remembered(number):
            self._own[number % TICKETS_MAX] = 2 * _lap(number) + 1

    def _mark_of(self, number: int) -> int:
        """Return 0, 1 for a ticket in a queue, or 2 for one that is used."""
        at, standing = number % TICKETS_MAX, 2 * _lap(number)
        found = 0
        for marks in self._marks:
            mark = marks[at]
            if mark == standing + 1:
                return 2
            if mark == standing:
                found = 1
        return found

    def _is_marked_elsewhere(self, number: int) -> bool:
        at, standing = number % TICKETS_MAX, 2 * _lap(number)
        return any(marks[at] in (standing, standing + 1) for marks in self._others)

    def _is_remembered(self, number: int) -> bool:
        memory = self._memory
        serial, owner = divmod(number, memory.workers)
        issued = memory.words[memory.slots[owner].word + ISSUED]
        return bool(issued - TICKETS_MAX // memory.workers <= serial < issued)

    def _is_spent(self, number: int) -> bool:
        return self._mark_of(number) == 2


def _lap(number: int) -> int:
    return 1 + number // TICKETS_MAX % _LAPS


_WITHOUT_STANDING: Final = bytes(mark if mark & 1 else 0 for mark in range(256))
