"""Workers of one box, each with a connection to the server of its own, beside another box."""

import pytest

from retter.base.shared_memory import NEWS_BYTES, SharedMemory, bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.disk.news import News
from retter.disk.shared_behind import NoShelf, SharedBehind, follow
from retter.far.changes import NO_PLACE, Message
from retter.far.siblings import DEAD_S, KEPT_S, PENDING_MAX, Siblings, number_of, place_at
from retter.proxy.follower import Follower
from retter.store.shared_store import SharedStore
from retter.store.store import StoreRules
from retter.store.write_behind import Removals
from tests.far.test_shelf import PAGE, found, identity_of, put
from tests.support.disk import Clock
from tests.support.far import Box, FakeServer, settle
from tests.support.stores import ALICE, BOB

NAME = b"a box"
LONG_BYTES = NEWS_BYTES // 10  # of one key; in the ring it takes twice that


class Worker(Box):
    """One of the workers of a box; nothing is in a database that they share."""

    def __init__(
        self, server: FakeServer, clock: Clock, shared: SharedMemory, index: int, name: str = ""
    ) -> None:
        super().__init__(server, clock, name or f"worker-{index}")
        keys = self.shelf.keys
        self.news = News(shared, index)
        self.store = SharedStore(
            StoreRules(secret=keys.owner, public_secret=keys.public, max_stale_s=1000.0), self.news
        )
        self.store.lineages = self.rules.lineages
        behind = SharedBehind(NoShelf(), self.news)
        self.store.put_behind(behind)
        follow(self.store, self.news, behind)
        follower = Follower(behind)
        follower.listeners.append(self.shelf)
        self.store.put_behind(follower)
        shelves = self.store.shelves
        self.shelf.writes.slot_of = lambda key: (shelves.slots.get(key, ()), shelves.marks_of(key))
        self.shared = shared
        self.place = WorkerPlace(index, 2, index, shared)
        apply = self.news.on_removals

        def apply_here(removals: Removals, now: float) -> None:
            with self.shelf.applying():
                apply(removals, now)

        self.news.on_removals = apply_here
        self.shelf.count_as(NAME)
        self.shelf.join(Siblings(self.place, self.news))

    def tick(self) -> None:
        self.shared.beat(self.place.place, self.clock.now)
        self.news.tick(self.clock.now)
        super().tick()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> FakeServer:
    return FakeServer(clock)


@pytest.fixture
def shared() -> SharedMemory:
    return divided(memoryview(bytearray(bytes_for(2))), 2)


@pytest.fixture
def workers(server: FakeServer, clock: Clock, shared: SharedMemory) -> tuple[Worker, Worker]:
    first, second = (Worker(server, clock, shared, index) for index in range(2))
    settle(clock, first, second, seconds=2.0)
    return first, second


@pytest.fixture
def other(server: FakeServer, clock: Clock, workers: tuple[Worker, Worker]) -> Box:
    box = Box(server, clock, "other")
    settle(clock, box, *workers, seconds=2.0)
    return box


def ask(worker: Worker) -> None:
    """Look for what a request needs, which shows the worker what the others have removed."""
    found(worker, b"/page")
    worker.clock.now += 0.01


def changes_in(server: FakeServer) -> int:
    (stream,) = server.of_kind("changes").values() or ([],)
    return len(stream)


def test_all_workers_are_counted_as_one_box(workers: tuple[Worker, Worker], other: Box) -> None:
    assert [box.shelf.boxes for box in (*workers, other)] == [2, 2, 2]


def test_what_one_worker_stored_the_others_and_the_other_box_have(
    clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    put(workers[1], b"/page")
    settle(clock, other, *workers)
    assert found(workers[0], b"/page") == PAGE == found(other, b"/page")


def test_a_change_is_told_to_the_server_once(
    server: FakeServer, clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    for box in workers:
        put(box, b"/page", PAGE, ALICE)
    settle(clock, other, *workers)
    identity = identity_of(workers[0], b"/page", ALICE)
    workers[0].store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, other, *workers, seconds=3.0)
    assert changes_in(server) == 1 and len(other.heard) == 1
    assert [found(box, b"/page", ALICE) for box in (*workers, other)] == [None, None, None]


def test_no_worker_reads_what_another_one_has_dropped_and_not_told_yet(
    server: FakeServer, clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    put(other, b"/page", PAGE, ALICE)
    put(other, b"/page", PAGE, BOB)
    settle(clock, other, *workers)
    identity = identity_of(workers[0], b"/page", ALICE)
    workers[0].store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    assert server.of_kind("e"), "the server still has it"
    assert found(workers[1], b"/page", ALICE) is None
    assert found(workers[1], b"/page", BOB) == PAGE


def test_a_superseded_page_of_the_server_is_superseded_for_the_other_worker_at_once(
    clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    put(other, b"/page")
    settle(clock, other, *workers)
    identity = identity_of(workers[0], b"/page")
    workers[0].store.invalidation.supersede(identity, [identity.url], clock.now)
    assert found(workers[1], b"/page") is None
    assert found(workers[1], b"/page", superseded=True) == PAGE


def test_what_is_stored_after_a_change_outlives_that_all_workers_hear_of_it(
    clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    """Each worker hears it up to 0.25 s after the first one, which has applied it for all."""
    put(other, b"/page")
    settle(clock, other, *workers)
    identity = identity_of(other, b"/page")
    other.store.invalidation.supersede(identity, [identity.url], clock.now)
    settle(clock, other, workers[0], seconds=0.5)
    ask(workers[1])
    put(workers[1], b"/page", b"<p>new</p>")
    settle(clock, other, *workers, seconds=3.0)
    assert found(workers[1], b"/page") == b"<p>new</p>"
    assert len(workers[0].heard) == 1 and workers[1].heard == []


def test_the_page_that_a_worker_stores_after_anothers_change_reaches_the_other_box(
    clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    identity = identity_of(workers[0], b"/page")
    workers[0].store.invalidation.supersede(identity, [identity.url], clock.now)
    ask(workers[1])
    put(workers[1], b"/page")
    settle(clock, other, *workers, seconds=KEPT_S + 1.0)
    assert found(other, b"/page") == PAGE


def test_nobody_removes_at_the_server_what_a_sibling_has_stored_again(
    clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    for box in workers:
        put(box, b"/page")
    settle(clock, other, *workers)
    (key,) = workers[0].store.shelves.slots
    workers[0].store.invalidation.take_back(Removals(keys={key}), clock.now)
    clock.now += 0.01
    ask(workers[1])
    put(workers[0], b"/page", b"<p>new</p>")
    settle(clock, other, *workers, seconds=3.0)
    assert found(other, b"/page") == b"<p>new</p>"


def test_a_new_worker_goes_on_where_the_others_are_and_tells_what_the_dead_one_could_not(
    server: FakeServer, clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    first, second = workers
    put(other, b"/page", PAGE, ALICE)
    other.store.invalidation.purge(url=b"/elsewhere")
    settle(clock, other, *workers)
    server.trouble = "it is away"
    settle(clock, first, second, seconds=1.0)
    identity = identity_of(second, b"/page", ALICE)
    second.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    server.trouble = ""
    again = Worker(server, clock, first.shared, 1, "again")
    assert again.shelf.heard.place == first.shelf.heard.place != NO_PLACE
    settle(clock, other, first, again, seconds=3.0)
    assert found(other, b"/page", ALICE) is None
    assert again.heard == [] and len(other.heard) == 1


@pytest.mark.parametrize("noted", [False, True])
def test_the_next_worker_tells_what_its_ring_has_lost(
    server: FakeServer, clock: Clock, workers: tuple[Worker, Worker], other: Box, noted: bool
) -> None:
    """Noted changes are in a file. In place of others, too much is told, never too little."""
    for target in (b"/page", b"/purged"):
        put(other, target)
    settle(clock, other, *workers)
    server.trouble = "it is away"
    first, second = workers
    first.store.invalidation.purge(url=identity_of(first, b"/purged").url, now=clock.now)
    written = first.news.position
    for number in range(8):
        long = b"*https://shop.example/%d" % number + b"x" * LONG_BYTES
        first.store.invalidation.take_back(Removals(keys={long}), clock.now)
    assert first.shelf.siblings is not None
    assert first.shelf.siblings.is_to_be_noted
    if noted:
        first.shelf.siblings.noted(first.news.position)
        assert not first.shelf.siblings.is_to_be_noted
    else:
        first.shelf.siblings.noted(written)
    again = Worker(server, clock, second.shared, 0, "again")
    server.trouble = ""
    settle(clock, other, again, second, seconds=3.0)
    assert (found(other, b"/page") == PAGE) is noted
    assert again.shelf.siblings is not None
    assert again.shelf.siblings.own.everything is not noted


def test_what_a_worker_could_not_tell_that_never_comes_back_the_first_one_tells(
    server: FakeServer, clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    first, second = workers
    put(other, b"/page", PAGE, ALICE)
    settle(clock, other, *workers)
    identity = identity_of(second, b"/page", ALICE)
    second.store.invalidation.drop_owner(identity.owner, clock.now, identity.marks)
    settle(clock, other, first, seconds=DEAD_S - 1.0)
    assert other.heard == []
    settle(clock, other, first, seconds=3.0)
    assert len(other.heard) == 1 and found(other, b"/page", ALICE) is None
    assert not first.shelf.siblings or not first.shelf.siblings.untold


def test_orders_of_a_sibling_are_not_obeyed_twice_but_a_new_worker_hears_the_last(
    server: FakeServer, clock: Clock, workers: tuple[Worker, Worker], other: Box
) -> None:
    heard: list[str] = []

    def note(message: Message) -> None:
        heard.extend([str(order["order"]) for order in message.orders])

    first, second = workers
    second.shelf.on_message = note
    other.shelf.tell_order({"order": "pause", "until": clock.wall() + 60})
    settle(clock, other, *workers)
    first.shelf.tell_order({"order": "resume", "until": clock.wall() + 60})
    settle(clock, other, *workers)
    assert heard == ["pause"], "the first worker's own order holds for its siblings already"
    heard.clear()
    again = Worker(server, clock, first.shared, 0, "again")
    again.shelf.on_message = note
    settle(clock, other, again, second)
    assert heard == ["resume"], "which replaces the pause"


def test_changes_that_cannot_be_told_take_little_memory(
    server: FakeServer, clock: Clock, workers: tuple[Worker, Worker]
) -> None:
    first, second = workers
    server.trouble = "it is away"
    for number in range(PENDING_MAX + 10):
        first.store.invalidation.take_back(Removals(keys={b"key-%d" % number}), clock.now)
        second.news.look(clock.now)
    siblings = second.shelf.siblings
    assert siblings is not None
    assert len(siblings._pending) < PENDING_MAX
    assert siblings.untold.take(b"key-0") and siblings.untold.take(b"key-%d" % PENDING_MAX)
    server.trouble = ""
    settle(clock, *workers, seconds=KEPT_S + 3.0)
    assert not siblings.untold


def test_a_place_is_one_number_that_never_lies_after_it() -> None:
    place = place_at(number_of(place_at(1_700_000_000_000 << 16 | 7)))
    assert place == place_at(1_700_000_000_000 << 16 | 7)
    assert number_of(NO_PLACE) == 0 and place_at(0) == NO_PLACE
    late = (1_700_000_000_000).to_bytes(8) + (1 << 40).to_bytes(8)
    assert place < place_at(number_of(late)) < late
    assert number_of(b"\xff" * 16) == 0, "no clock of a server"
