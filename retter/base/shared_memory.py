"""The layout of the memory that all workers of one RETTER share.

Each part has one piece for each place (worker_place.py), which only its owner writes. Numbers of 8
octets at multiples of 8 are written and read whole, because a cast `memoryview` copies them in one
step.

    secrets    the keys of all hashes, written before any worker is started
    beats      when each worker last showed that it is alive, monotonic seconds
    judgement  the state of the breaker
    news       a ring for each worker with what it has removed from the store (ring.py)
    heads      up to where each ring is written
    committed  up to where the removals of each ring are in the shared store
    told       up to where the removals of each ring were told to the other boxes (`--shared`)
    noted      up to where those that are not told are in a file beside the store
    heard      the last change of another box that each worker has applied
    sessions   a ring for each worker with what it has learnt of sessions (store/shared_sessions.py)
    learnt     up to where each of these rings is written
    since      from where a new worker reads each of them
    applied    changes of other boxes that some worker has applied
    figures    what each worker has counted
    answers    a ring for each worker with what a purge has dropped near it (disk/purge_answers.py),
               and with what it has near it for a list of pages (disk/page_answers.py)
    answered   up to where each of these rings is written
    given      who had the pages that each worker has committed last (disk/given.py)

Pure: the memory comes from the caller.
"""

from dataclasses import dataclass
from typing import Final

# A cache line, so that two workers never write to the same one.
LINE_BYTES: Final = 64

NUMBER_BYTES: Final = 8

# A slot of judgement/memory.py. Most of it are marks of tickets, which take no memory until used.
JUDGEMENT_BYTES: Final = 704 * 1024

# Some thousand removals. A worker reads the rings of the others at least twenty times a second, and
# one that is too late drops everything that it has in memory.
NEWS_BYTES: Final = 256 * 1024

# 500 to 1,000 messages: all that 20 workers with rolling sessions learn in a second takes less than
# half of it.
SESSIONS_BYTES: Final = 256 * 1024

# The figures of a worker with many routes, as JSON: 40 KB. They are there twice.
FIGURES_BYTES: Final = 2 * 128 * 1024

# What a purge has dropped near a worker: 8,192 keys of 32 octets at most, and as much room again.
# Untouched, it takes no memory.
ANSWERS_BYTES: Final = 512 * 1024

# Four keys as JSON take 400 octets.
SECRETS_BYTES: Final = 1024

# 2,048 notes of 40 octets: the pages that a worker stores in ten seconds, mostly.
GIVEN_BYTES: Final = 80 * 1024

# The number of this layout. A process of another version takes over the memory only if it has the
# same one. Add one after each change of what workers write there.
LAYOUT: Final = 8

# As many as the other boxes can tell at once (far/rounds.py).
APPLIED_NUMBERS: Final = 4096

PLACE_BYTES: Final = (
    9 * LINE_BYTES
    + JUDGEMENT_BYTES
    + NEWS_BYTES
    + SESSIONS_BYTES
    + FIGURES_BYTES
    + ANSWERS_BYTES
    + GIVEN_BYTES
)


def places_of(workers: int) -> int:
    """Return the number of places: two generations of workers."""
    return 2 * workers


def bytes_for(workers: int) -> int:
    """Return the size of the memory for so many workers."""
    return SECRETS_BYTES + APPLIED_NUMBERS * NUMBER_BYTES + places_of(workers) * PLACE_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class SharedMemory:
    """The parts of the memory.

    Attributes:
        secrets: For all workers.
        beats: One number for each place; others lie between them (LINE_BYTES).
        judgement: JUDGEMENT_BYTES for each place.
        news: NEWS_BYTES for each place.
        heads: One number for each place; the next ones are beside it, so that one look shows all.
        committed: The same.
        told: The same.
        noted: The same.
        heard: The same.
        sessions: SESSIONS_BYTES for each place.
        learnt: One number for each place, beside each other.
        since: The same.
        applied: Numbers that any worker writes, each whole (far/siblings.py).
        figures: FIGURES_BYTES for each place.
        answers: ANSWERS_BYTES for each place.
        answered: One number for each place, beside each other.
        given: GIVEN_BYTES for each place.
    """

    workers: int
    secrets: memoryview
    beats: "memoryview[float]"
    judgement: memoryview
    news: tuple[memoryview, ...]
    heads: "memoryview[int]"
    committed: "memoryview[int]"
    told: "memoryview[int]"
    noted: "memoryview[int]"
    heard: "memoryview[int]"
    sessions: tuple[memoryview, ...]
    learnt: "memoryview[int]"
    since: "memoryview[int]"
    applied: "memoryview[int]"
    figures: tuple[memoryview, ...]
    answers: tuple[memoryview, ...]
    answered: "memoryview[int]"
    given: tuple[memoryview, ...]

    def beat(self, place: int, now: float) -> None:
        """Note that the worker at a place is alive."""
        self.beats[place * LINE_BYTES // NUMBER_BYTES] = now

    def last_beat(self, place: int) -> float:
        """Return when the worker at a place was last alive."""
        return self.beats[place * LINE_BYTES // NUMBER_BYTES]


def divided(memory: memoryview, workers: int) -> SharedMemory:
    """Return the parts of a memory of `bytes_for(workers)` octets."""
    places, at = places_of(workers), 0

    def part(size: int) -> memoryview:
        nonlocal at
        begin, at = at, at + size
        return memory[begin:at]

    def positions() -> "memoryview[int]":
        return part(places * LINE_BYTES)[: places * NUMBER_BYTES].cast("q")

    return SharedMemory(
        workers,
        part(SECRETS_BYTES),
        part(places * LINE_BYTES).cast("d"),
        part(places * JUDGEMENT_BYTES),
        tuple([part(NEWS_BYTES) for _ in range(places)]),
        positions(),
        positions(),
        positions(),
        positions(),
        positions(),
        tuple([part(SESSIONS_BYTES) for _ in range(places)]),
        positions(),
        positions(),
        part(APPLIED_NUMBERS * NUMBER_BYTES).cast("q"),
        tuple([part(FIGURES_BYTES) for _ in range(places)]),
        tuple([part(ANSWERS_BYTES) for _ in range(places)]),
        positions(),
        tuple([part(GIVEN_BYTES) for _ in range(places)]),
    )
