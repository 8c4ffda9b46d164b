"""The memory that the workers share: one slot for each worker, written by that worker alone.

There is no lock. Two kinds of values are in a slot:

- Words: each is one aligned number of 8 octets with a meaning of its own. It is written and read by
  a native `memoryview.cast`, which copies it in one step.
- Blocks: numbers that belong together. A block has a serial number, which is odd while the block is
  written, and a check sum. So a reader never takes a half-written block for a whole one, whatever
  the order in which the processor makes the octets visible.

Memory that is all zero is valid: no worker has begun. A slot outlives its process, so the next
process of the same worker, or the next leader, finds what was published.
"""

from math import inf
from struct import Struct
from typing import Final
from zlib import crc32

PLACES_MAX: Final = 128  # two generations of the most workers that there may be

_LINE_BYTES: Final = 64  # of the processor's cache: two workers never write to one line
_WORD_BYTES: Final = 8
_READS_MAX: Final = 4  # a writer is done within microseconds, or it died while writing

# The words of a slot, by their index. Those of the first line are read for every request.
IN_FLIGHT: Final = 0  # requests of this worker that the application works on
HEARTBEAT: Final = 1  # monotonic seconds of the last tick
HEAD: Final = 2  # number of events that were written to the ring
PROBED_AT: Final = 3  # when this worker last sent a probe of the circuit
TRIED_AT: Final = 4  # when this worker last tried a request above the ceiling
WAITING: Final = 5  # requests that wait for a place in this worker
INCARNATION: Final = 6  # number of processes that this worker has had
OLD_OTHERS: Final = 8  # of those in flight: other methods that outlived their patience
SHED_AT: Final = 9  # when a request of this worker last found no place
PASSED: Final = 10  # good answers written to the ring
FAILED: Final = 11  # failures written to the ring
ORDERED_AT: Final = 12  # when an operator last gave this worker an order
ISSUED: Final = 13  # tickets that this worker has issued
OTHERS_WAITING: Final = 16  # of those that wait: other methods
LINES_WAITING: Final = 17  # the next six words: GETs by lane, without and with a stored response
LINES: Final = 6
_WORDS: Final = 24

REPORT_NUMBERS: Final = 16  # room in each block
ORDER_NUMBERS: Final = 6
FIGURES_NUMBERS: Final = 40 + PLACES_MAX
TABLES_NUMBERS: Final = 1024
DEMANDS_MAX: Final = 256  # clients with a row each; of more, each has too small a share to matter
DEMAND_NUMBERS: Final = 3 + 3 * DEMANDS_MAX

NAMES_MAX: Final = 64  # names of routes; as many as the breaker's table has
NAME_BYTES: Final = 128  # with the number of the route and the length
EVENTS_MAX: Final = 2048  # in a ring: 20 ticks' worth at 2,000 requests a second
EVENT_BYTES: Final = 64
TICKET_MARKS: Final = 1 << 19  # the marks of tickets: one octet for each number remembered

_BLOCK_HEAD_BYTES: Final = 16


def _block_bytes(numbers: int) -> int:
    octets = _BLOCK_HEAD_BYTES + numbers * _WORD_BYTES
    return -(-octets // _LINE_BYTES) * _LINE_BYTES


_REPORT_AT: Final = _WORDS * _WORD_BYTES
_ORDER_AT: Final = _REPORT_AT + _block_bytes(REPORT_NUMBERS)
_FIGURES_AT: Final = _ORDER_AT + _block_bytes(ORDER_NUMBERS)
_TABLES_AT: Final = _FIGURES_AT + _block_bytes(FIGURES_NUMBERS)
_DEMAND_AT: Final = _TABLES_AT + _block_bytes(TABLES_NUMBERS)
_NAMES_AT: Final = _DEMAND_AT + _block_bytes(DEMAND_NUMBERS)
_EVENTS_AT: Final = _NAMES_AT + NAMES_MAX * NAME_BYTES
_MARKS_AT: Final = _EVENTS_AT + EVENTS_MAX * EVENT_BYTES
SLOT_BYTES: Final = _MARKS_AT + TICKET_MARKS


def bytes_needed(workers: int) -> int:
    """Return the size of the memory that this many workers share, in octets.

    Most of them are never touched, so they take no memory.
    """
    if not 1 <= workers <= PLACES_MAX:
        raise ValueError(f"{workers} workers: at most {PLACES_MAX} share one judgement")
    return workers * SLOT_BYTES


class Block:
    """Numbers that belong together, written by one process and read by the others.

    Attributes:
        word: The index of the word with its serial number. The first number is two words later.
    """

    __slots__ = ("_at", "_numbers", "_octets", "_words", "word")

    def __init__(self, octets: memoryview, words: memoryview, at: int, numbers: int) -> None:
        self._octets = octets
        self._words = words
        self._at = at
        self.word = at // _WORD_BYTES
        self._numbers = numbers

    @property
    def serial(self) -> int:
        """Changes with every write; odd while the block is written. 0: never written."""
        serial: int = self._words[self.word]
        return serial

    def write(self, numbers: list[float]) -> int:
        """Write the numbers; return the serial number."""
        if len(numbers) > self._numbers:
            raise ValueError(f"{len(numbers)} numbers; the block has room for {self._numbers}")
        said = Struct(f"={len(numbers)}d").pack(*numbers)
        words, word, begin = self._words, self.word, self._at + _BLOCK_HEAD_BYTES
        serial = words[word] | 1  # odd already if the last process died while it wrote
        words[word] = serial
        self._octets[begin : begin + len(said)] = said
        words[word + 1] = crc32(said) << 16 | len(numbers)
        words[word] = serial + 1
        written: int = serial + 1
        return written

    def read(self) -> tuple[int, tuple[float, ...]] | None:
        """Return the serial number and the numbers; None if they cannot be read whole now."""
        words, word, begin = self._words, self.word, self._at + _BLOCK_HEAD_BYTES
        for _ in range(_READS_MAX):
            serial: int = words[word]
            if not serial:
                return None
            check = words[word + 1]
            count = check & 0xFFFF
            if serial & 1 or count > self._numbers:
                continue
            said = bytes(self._octets[begin : begin + count * _WORD_BYTES])
            if crc32(said) == check >> 16 and words[word] == serial:
                return serial, Struct(f"={count}d").unpack(said)
        return None


class Slot:
    """One worker's part of the memory.

    Attributes:
        word: The index of its first word, in `words` and `floats`.
    """

    __slots__ = (
        "demand", "events_at", "figures", "index", "marks", "names_at", "octets", "order", "report",
        "tables", "word",
    )  # fmt: skip

    def __init__(self, octets: memoryview, words: memoryview, index: int) -> None:
        at = index * SLOT_BYTES
        self.index = index
        self.octets = octets
        self.word = at // _WORD_BYTES
        self.report = Block(octets, words, at + _REPORT_AT, REPORT_NUMBERS)
        self.order = Block(octets, words, at + _ORDER_AT, ORDER_NUMBERS)
        self.figures = Block(octets, words, at + _FIGURES_AT, FIGURES_NUMBERS)
        self.tables = Block(octets, words, at + _TABLES_AT, TABLES_NUMBERS)
        self.demand = Block(octets, words, at + _DEMAND_AT, DEMAND_NUMBERS)
        self.names_at = at + _NAMES_AT
        self.events_at = at + _EVENTS_AT
        self.marks = octets[at + _MARKS_AT : at + _MARKS_AT + TICKET_MARKS]


class Memory:
    """The slots of all workers.

    Args:
        buffer: At least `bytes_needed(workers)` octets that all workers share, at first all zero.
    """

    __slots__ = ("floats", "octets", "slots", "words", "workers")

    def __init__(self, buffer: object, workers: int) -> None:
        octets = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        needed = bytes_needed(workers)
        if len(octets) < needed:
            raise ValueError(f"{len(octets)} octets for {workers} workers; {needed} are needed")
        self.octets = octets[:needed]
        self.words = self.octets.cast("q")
        self.floats = self.octets.cast("d")
        self.workers = workers
        self.slots = [Slot(self.octets, self.words, index) for index in range(workers)]

    def vacate(self, index: int) -> None:
        """Note that the process of a worker ended: it has nothing in flight, and none waits.

        Only the parent of that process calls it: nothing else writes to the slot then.
        """
        at = self.slots[index].word
        self.floats[at + HEARTBEAT] = -inf
        for word in (IN_FLIGHT, OLD_OTHERS, WAITING):
            self.words[at + word] = 0
        for word in range(OTHERS_WAITING, LINES_WAITING + LINES):
            self.words[at + word] = 0

    def begin(self, index: int) -> None:
        """Begin a new process of a worker; it writes a heartbeat when it is ready to lead."""
        self.vacate(index)
        self.words[self.slots[index].word + INCARNATION] += 1

    def lives(self, index: int, now: float, silent_s: float) -> bool:
        """Return whether a worker has written a heartbeat in the last `silent_s` seconds."""
        at = self.slots[index].word
        return bool(self.words[at + INCARNATION] and now - self.floats[at + HEARTBEAT] <= silent_s)
