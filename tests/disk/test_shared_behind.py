"""Several workers with one database: none serves what another one has removed, in any order.

The processes are objects here. Each follows a script of steps: it stores, removes, takes a batch,
gets the lock of the database, writes, notes that it has written, reads, dies. A test tries every
order in which the steps of all scripts can follow each other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from retter.base.shared_memory import SharedMemory, bytes_for, divided
from retter.disk.news import FORGET_EVERY_S, KEPT_S, News
from retter.disk.shared_behind import LONG_KEYS_EVERY_S, NoShelf, SharedBehind, follow
from retter.http.message import RequestHead
from retter.store.record import BODY
from retter.store.rules import StoreRules
from retter.store.shared_store import COMPARED_EVERY_S, SharedStore
from retter.store.write_behind import Batch, Found, Removals, marked_superseded
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, SECRET, request, who
from tests.support.tracing import untraced

PAGE = request(ALICE, target=b"/page")
PUBLIC = request(target=b"/page")
PLACES = 3
RING_BYTES = 1024
STEP_S = 0.01


def small_memory() -> SharedMemory:
    """Return a shared memory with the parts that matter here."""
    nothing = memoryview(b"")
    return SharedMemory(
        workers=PLACES,
        secrets=nothing,
        beats=memoryview(bytearray(8)).cast("d"),
        judgement=nothing,
        news=tuple([memoryview(bytearray(RING_BYTES)) for _ in range(PLACES)]),
        heads=memoryview(bytearray(8 * PLACES)).cast("q"),
        committed=memoryview(bytearray(8 * PLACES)).cast("q"),
        told=memoryview(bytearray(8 * PLACES)).cast("q"),
        noted=memoryview(bytearray(8 * PLACES)).cast("q"),
        heard=memoryview(bytearray(8 * PLACES)).cast("q"),
        sessions=(),
        learnt=memoryview(b"").cast("q"),
        since=memoryview(b"").cast("q"),
        applied=memoryview(bytearray(8 * 16)).cast("q"),
        figures=(),
        answers=(),
        answered=memoryview(b"").cast("q"),
        given=(),
    )


class Blocked(Exception):
    """A step cannot be done now: this order does not exist."""


@dataclass
class SharedDatabase:
    """The database as all workers see it: one of them writes at a time, and a write is whole."""

    slots: dict[bytes, Found] = field(default_factory=dict[bytes, Found])

    def write(self, batch: Batch) -> None:
        for key, found in list(self.slots.items()):
            if batch.removals.take(key, found.marks):
                del self.slots[key]
            elif key in batch.removals.superseded:
                self.slots[key] = Found(marked_superseded(found.slot), found.marks)
        for key, written in batch.slots.items():
            self.slots.pop(key, None)
            if written.slot:
                self.slots[key] = Found(written.slot, written.marks)


class Process:
    """One worker."""

    def __init__(self, world: "World", place: int) -> None:
        self.world = world
        self.news = News(world.shared, place)
        self.behind = SharedBehind(self, self.news)
        self.store = SharedStore(StoreRules(secret=SECRET), self.news)
        self.store.put_behind(self.behind)
        follow(self.store, self.news, self.behind)
        self.batch: Batch | None = None
        self.snapshot: dict[bytes, Found | None] = {}

    # -- the interface of a shelf

    def read(self, key: bytes, now: float) -> Found | None:
        return self.world.database.slots.get(key)

    def knows(self, key: bytes) -> bool:
        return key in self.world.database.slots

    def note(self, removals: Removals) -> None:
        pass


class World:
    """All workers, their database, and what must not be served any more."""

    def __init__(self, asked: RequestHead) -> None:
        self.asked = asked
        self.identity = who(asked)
        self.shared = small_memory()
        self.database = SharedDatabase()
        self.now = 10.0
        self.processes = [Process(self, place) for place in range(PLACES)]
        self.locked_by: Process | None = None
        self.removed = False

    def do(self, place: int, step: str) -> None:
        """Let one worker do one step."""
        self.now += STEP_S
        getattr(self, step)(self.processes[place])

    # -- storing

    def put(self, process: Process) -> None:
        """A response arrives that was asked for before anything else happened."""
        process.store.put(self.identity, self.asked, response(), b"old", 1.0, self.now)

    def forget(self, process: Process) -> None:
        """Others have pushed all out of the memory of this worker."""
        process.store.invalidation.drop_keys(list(process.store.shelves.slots))

    # -- removing

    def log_out(self, process: Process) -> None:
        process.store.invalidation.drop_owner(self.identity.owner, self.now, self.identity.marks)
        self.removed = True

    def change(self, process: Process) -> None:
        process.store.invalidation.supersede(self.identity, [self.identity.url], self.now)
        self.removed = True

    def purge(self, process: Process) -> None:
        process.store.invalidation.empty(self.now)
        self.removed = True

    def withdraw(self, process: Process) -> None:
        """The application says that the page does not exist any more."""
        if process.store.taken_back.withdraw(self.identity.key, self.now) is not None:
            self.removed = True

    # -- writing

    def take(self, process: Process) -> None:
        process.batch = process.behind.take(self.now)

    def lock(self, process: Process) -> None:
        if process.batch is None:
            return
        if self.locked_by is not None:
            raise Blocked
        self.locked_by = process
        process.batch = process.behind.still_valid(process.batch)

    def write(self, process: Process) -> None:
        if process.batch is not None:
            self.database.write(process.batch)
            self.locked_by = None

    def commit(self, process: Process) -> None:
        self.lock(process)
        self.write(process)
        self.done(process)

    def done(self, process: Process) -> None:
        if process.batch is not None:
            process.behind.done()
            process.batch = None

    def tick(self, process: Process) -> None:
        process.behind.tick(self.now)

    def tick_later(self, process: Process) -> None:
        """Long after: what is committed is forgotten."""
        self.now += FORGET_EVERY_S
        self.tick(process)
        self.now += KEPT_S
        self.tick(process)

    def die_and_start(self, process: Process) -> None:
        """The kernel takes the lock away, and what was not written whole is not there."""
        if self.locked_by is process:
            self.locked_by = None
        if self.locked_by is not None:
            raise Blocked  # it waits for the other one's lock
        place = self.processes.index(process)
        new = self.processes[place] = Process(self, place)
        new.behind.begin_with(new.news.own)
        for step in (self.take, self.lock, self.write, self.done):
            step(new)

    # -- serving

    def serve(self, process: Process) -> None:
        found = process.store.find(self.identity, self.asked, self.now)
        assert not (found and self.removed), "another worker has removed it"

    def begin_to_read(self, process: Process) -> None:
        """As a thread does: it sees the database as it is now."""
        process.news.look(self.now)
        key = self.identity.key
        process.snapshot = {key: self.database.slots.get(key)}

    def end_to_read(self, process: Process) -> None:
        for key, found in process.snapshot.items():
            passed = None if found is None else process.behind.checked(key, found)
            if passed is not None:
                process.store.shelves.promote(key, passed)
        process.snapshot = {}
        self.serve(process)


def orders(scripts: Sequence[Sequence[str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield every order of the steps of all scripts."""
    if not any(scripts):
        yield []
    for place, script in enumerate(scripts):
        if script:
            rest = [*scripts[:place], script[1:], *scripts[place + 1 :]]
            for order in orders(rest):
                yield [(place, script[0]), *order]


def try_all(make: Callable[[], World], *scripts: str) -> int:
    """Try all orders; return how many of them exist."""
    count = 0
    for order in orders([script.split() for script in scripts]):
        world = make()
        try:
            for place, step in order:
                world.do(place, step)
        except AssertionError as error:
            raise AssertionError(f"{error}: {order}") from error
        except Blocked:
            continue
        count += 1
    return count


REMOVALS = [
    (PAGE, "log_out"),
    (PAGE, "change"),
    (PUBLIC, "change"),
    (PUBLIC, "purge"),
    (PUBLIC, "withdraw"),
]
removals = pytest.mark.parametrize(("asked", "remove"), REMOVALS)


def full(asked: RequestHead) -> World:
    """Return a world in which all workers and the database have the page."""
    world = World(asked)
    for place in range(PLACES):
        world.do(place, "put")
    for step in ("take", "lock", "write", "done"):
        world.do(0, step)
    return world


@removals
def test_what_is_near_one_worker_is_not_served_when_another_has_removed_it(
    asked: RequestHead, remove: str
) -> None:
    assert try_all(lambda: full(asked), remove, "serve put serve tick serve") == 6


@removals
def test_what_is_in_the_database_is_not_served_before_the_removal_is_committed(
    asked: RequestHead, remove: str
) -> None:
    assert try_all(
        lambda: full(asked), f"{remove} take lock write done", "forget tick serve forget serve"
    )


@removals
def test_a_thread_that_reads_meanwhile_finds_nothing(asked: RequestHead, remove: str) -> None:
    assert try_all(
        lambda: full(asked),
        f"{remove} take lock write done",
        "forget begin_to_read tick tick end_to_read",
    )


@removals
def test_a_page_that_arrives_late_is_not_written_behind_the_removal(
    asked: RequestHead, remove: str
) -> None:
    assert try_all(
        lambda: World(asked),
        f"{remove} take commit",
        "put take lock write done",
        "serve",
    )


@untraced
@removals
def test_a_page_that_is_written_late_is_not_read_long_after(
    asked: RequestHead, remove: str
) -> None:
    """The others forget the removal when it is committed: the database must be right by then."""
    assert try_all(
        lambda: World(asked),
        f"{remove} take commit tick",
        "put take lock write",
        "tick_later serve",
    )


@removals
def test_a_worker_that_starts_knows_what_is_not_committed(asked: RequestHead, remove: str) -> None:
    assert try_all(
        lambda: full(asked), f"{remove} take lock write done", "die_and_start serve tick serve"
    )


@removals
def test_a_worker_that_is_killed_commits_its_removals_when_it_starts_again(
    asked: RequestHead, remove: str
) -> None:
    assert try_all(
        lambda: full(asked),
        f"{remove} take lock die_and_start",
        "forget tick_later serve tick_later serve",
    )


def test_what_was_stored_after_the_change_is_found_by_all() -> None:
    """The removal is remembered for a while, and then the newer page is read again."""
    world = full(PUBLIC)
    world.do(0, "change")
    world.do(1, "serve")
    world.processes[0].store.put(
        world.identity, PUBLIC, response(), b"new", world.now + 1, world.now + 1
    )
    for step in ("take", "lock", "write", "done"):
        world.do(0, step)
    superseded = world.processes[1].store.lookup(world.identity, PUBLIC, world.now, superseded=True)
    assert superseded is not None and superseded.body == b"old", "better than an error"
    world.do(1, "tick_later")
    found = world.processes[1].store.lookup(world.identity, PUBLIC, world.now)
    assert found is not None and found.body == b"new"


def test_a_worker_that_missed_news_drops_everything() -> None:
    world = full(PAGE)
    for number in range(RING_BYTES // 16):
        world.processes[0].behind.withdrawn(b"*a.b/%d" % number, world.now)
    store = world.processes[1].store
    assert store.shelves.slots
    assert store.find(world.identity, PAGE, world.now) is None and not store.shelves.slots


def test_changes_of_long_urls_do_not_push_out_what_another_worker_must_know() -> None:
    """Else a stranger empties the store near each other worker with five requests."""
    shared = divided(memoryview(bytearray(bytes_for(2))), 2)
    stores: list[SharedStore] = []
    for place in range(2):
        news = News(shared, place)
        behind = SharedBehind(NoShelf(), news)
        store = SharedStore(StoreRules(secret=SECRET), news)
        store.put_behind(behind)
        follow(store, news, behind)
        stores.append(store)
    one, other = stores
    page, changed, long = (
        request(ALICE, target=target) for target in (b"/page", b"/changed", b"/" + b"a" * 16_000)
    )
    for each in (page, changed, long):
        other.put(who(each), each, response(), b"page", 10.0, 10.0)
    for number in range(100):
        one.invalidation.supersede(who(page), [b"a.b/%d" % number + b"x" * 16_000], 11.0)
    one.invalidation.supersede(who(changed), [who(changed).url], 11.0)
    assert other.lookup(who(page), page, 11.0) is not None
    assert other.lookup(who(changed), changed, 11.0) is None
    one.invalidation.supersede(who(long), [who(long).url], 11.0 + LONG_KEYS_EVERY_S)
    assert other.lookup(who(long), long, 11.2) is None, "a few of them are told"
    assert other.lookup(who(long), long, 11.2, superseded=True) is not None


def put(process: Process, target: bytes, body: bytes = b"new") -> bytes:
    """Store a page; return its key."""
    asked = request(target=target)
    process.store.put(who(asked), asked, response(), body, process.world.now, process.world.now)
    return who(asked).key


def in_database(world: World) -> set[bytes]:
    return set(world.database.slots)


def tick_and_write(world: World) -> None:
    """Write what is due in the first worker."""
    if world.processes[0].behind.is_due(world.now):
        world.do(0, "take")
        world.do(0, "commit")


def test_what_is_stored_while_rules_differ_waits_for_the_end_of_it() -> None:
    world = World(PUBLIC)
    process, behind = world.processes[0], world.processes[0].behind
    before = put(process, b"/before")
    behind.hold()
    held = put(process, b"/held")
    changed = put(process, b"/changed")
    tick_and_write(world)
    assert in_database(world) == {before}, "what had waited is written at once"
    behind.hold()
    assert not behind.is_due(world.now + 100.0)
    process.store.invalidation.purge(url=who(request(target=b"/changed")).url, now=world.now)
    process.store.invalidation.purge(url=who(request(target=b"/before")).url, now=world.now)
    tick_and_write(world)
    assert in_database(world) == set(), "what is removed does not wait"
    assert behind.fetch(held, world.now) is not None and behind.bytes_waiting > 0
    behind.release()
    assert behind.is_due(world.now), "others have waited for it long enough"
    tick_and_write(world)
    assert in_database(world) == {held} and changed not in in_database(world)
    assert behind.is_clean and behind.bytes_waiting == 0


def test_what_is_held_is_not_written_with_a_batch_that_could_not_be_written() -> None:
    world = World(PUBLIC)
    process, behind = world.processes[0], world.processes[0].behind
    before = put(process, b"/before")
    behind.hold()
    world.do(0, "take")
    assert behind.take(world.now) is None, "it is under way"
    held = put(process, b"/held")
    behind.failed(world.now)
    world.now += 100.0
    tick_and_write(world)
    assert in_database(world) == {before}
    behind.release()
    tick_and_write(world)
    assert in_database(world) == {before, held}


def test_what_was_held_is_dropped_if_other_rules_hold_from_now_on() -> None:
    world = World(PUBLIC)
    process, behind = world.processes[0], world.processes[0].behind
    behind.hold()
    put(process, b"/held")
    behind.close()
    put(process, b"/later")
    assert behind.is_clean and behind.bytes_waiting == 0


def test_without_a_database_workers_still_hear_of_each_other() -> None:
    world = World(PAGE)
    for process in world.processes:
        process.behind._shelf = NoShelf()
        process.behind.closed = True
    for place in range(PLACES):
        world.do(place, "put")
    assert world.processes[1].store.find(world.identity, PAGE, world.now) is not None
    world.do(0, "log_out")
    for place in range(PLACES):
        world.do(place, "serve")


def asked_as(kind: bytes) -> RequestHead:
    return request((b"accept", kind), target=b"/page")


def store_as(process: Process, kind: bytes) -> None:
    asked = asked_as(kind)
    now = process.world.now
    assert process.store.put(who(asked), asked, response(), b"as " + kind, now, now)


def found_as(process: Process, kind: bytes) -> bytes | None:
    asked = asked_as(kind)
    found = process.store.find(who(asked), asked, process.world.now)
    return None if found is None else found[BODY]


def test_a_worker_finds_the_variants_that_another_one_has_stored_since() -> None:
    world = World(PUBLIC)
    one, other = world.processes[:2]
    store_as(one, b"text/html")
    assert found_as(one, b"application/json") is None
    tick = COMPARED_EVERY_S / 2
    for place in (0, 1):
        if place:
            store_as(other, b"application/json")
        world.do(place, "take")
        world.do(place, "commit")
    world.now += tick
    assert found_as(one, b"application/json") is None, "it has just looked"
    world.now += tick
    assert found_as(one, b"application/json") == b"as application/json"
    assert found_as(one, b"text/html") == b"as text/html"
    world.database.slots.clear()
    assert found_as(one, b"application/json") is not None, "it is near now"


def test_a_variant_that_is_superseded_is_not_looked_for_elsewhere() -> None:
    world = World(PUBLIC)
    one = world.processes[0]
    store_as(one, b"text/html")
    world.do(0, "take")
    world.do(0, "commit")
    identity = who(asked_as(b"text/html"))
    one.store.invalidation.supersede(identity, [identity.url], world.now)
    before = dict(world.database.slots)
    assert found_as(one, b"text/html") is None and world.database.slots == before
    assert len(one.store.shelves.slots[identity.key]) == 1


def test_a_worker_gives_way_to_what_another_one_has_stored() -> None:
    world = World(PUBLIC)
    one = world.processes[0]
    key = put(one, b"/page", b"error")
    one.behind.give_way(key)
    assert key in one.store.shelves.slots, "it waits to be written: it has changed since"
    world.do(0, "take")
    world.do(0, "commit")
    one.behind.give_way(key)
    assert key not in one.store.shelves.slots and one.behind.is_clean, "and no one removes it"
