"""What goes first when there is no room: against a naive model and by what they keep."""

import random
from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retter.store.s3fifo import GHOSTS_MAX, GHOSTS_MIN, STEPS_MAX, EvictionQueues, Ghosts
from tests.support.eviction import NaiveQueues
from tests.support.tracing import untraced
from tests.support.work import instructions_of

BUDGET = 100
keys = st.integers(0, 30).map(lambda number: b"*/%d" % number)
sizes = st.integers(1, 40)


class Machine(RuleBasedStateMachine):
    """Whatever is done, the same key is the next to go."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = EvictionQueues(BUDGET)
        self.naive = NaiveQueues(len(self.queues.ghosts))

    @rule(key=keys, size=sizes)
    def add(self, key: bytes, size: int) -> None:
        self.queues.add(key, size)
        self.naive.add(key, size)

    @rule(key=keys)
    def hit(self, key: bytes) -> None:
        if self.naive.holds(key):
            self.queues.asked[key] = None
            self.naive.asked.add(key)

    @rule(key=keys, size=st.integers(-1, 20))
    def grow(self, key: bytes, size: int) -> None:
        self.queues.grow(key, size)
        held = self.naive.probation
        self.naive.probation = [(k, s + size if k == key else s) for k, s in held]

    @rule(key=keys)
    def remove(self, key: bytes) -> None:
        if self.naive.holds(key):
            self.queues.remove(key)
            self.naive.remove(key)

    @precondition(lambda self: self.naive.probation or self.naive.main)
    @rule()
    def evict(self) -> None:
        key = self.queues.next_to_go(BUDGET)
        assert key == self.naive.next_to_go(BUDGET)
        if self.naive.on_probation(key):
            self.queues.ghosts.add(key)
            self.naive.leave_ghost(key)
        self.queues.remove(key)
        self.naive.remove(key)

    @invariant()
    def they_are_equal(self) -> None:
        queues, naive = self.queues, self.naive
        assert list(queues.probation.items()) == naive.probation
        assert list(queues.main) == naive.main
        assert set(queues.asked) == naive.asked
        assert queues.probation_bytes == sum(size for _, size in naive.probation)
        assert queues.asked.keys() <= queues.probation.keys() | queues.main.keys()


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestMachine = untraced(Machine.TestCase)


class Cache:
    """So many keys of one octet under these queues."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.queues = EvictionQueues(places)
        self.queues.ghosts = Ghosts(1 << 28)  # so many that no two of a test share a place

    def __contains__(self, key: bytes) -> bool:
        return key in self.queues.probation or key in self.queues.main

    def ask(self, key: bytes) -> bool:
        """Ask for a key, and store it if it is not there; whether it was."""
        queues = self.queues
        if key in self:
            queues.asked[key] = None
            return True
        if len(queues.probation) + len(queues.main) >= self.places:
            gone = queues.next_to_go(self.places)
            if gone in queues.probation:
                queues.ghosts.add(gone)
            queues.remove(gone)
        queues.add(key, 1)
        return False


def number(n: int) -> bytes:
    return b"*/%d" % n


def test_what_has_been_asked_for_again_outlives_a_scan() -> None:
    cache = Cache(100)
    for n in [*range(50), *range(50)]:
        cache.ask(number(n))
    for n in range(1000, 11_000):
        cache.ask(number(n))
    assert all(number(n) in cache for n in range(50))


def test_what_is_asked_for_once_goes_in_the_order_it_came() -> None:
    cache = Cache(100)
    for n in range(130):
        cache.ask(number(n))
    assert [n for n in range(130) if number(n) in cache] == list(range(30, 130))


def test_a_ghost_lets_back_into_the_main_queue() -> None:
    cache = Cache(10)
    cache.ask(b"*/page")
    for n in range(10):
        cache.ask(number(n))
    assert b"*/page" not in cache
    cache.ask(b"*/page")
    assert b"*/page" in cache.queues.main
    for n in range(100, 200):
        cache.ask(number(n))
    assert b"*/page" in cache, "the main queue's pages stay while there are others on probation"


def test_a_key_that_is_never_asked_for_again_leaves_the_main_queue_too() -> None:
    """What visitors read last week makes room for what they read today."""
    cache = Cache(100)
    for round_ in range(6):
        for n in 4 * [*range(80)]:
            cache.ask(number(1000 * round_ + n))
    assert not any(number(n) in cache for n in range(80))
    assert sum(number(5000 + n) in cache for n in range(80)) == 80


def test_a_zipf_trace_hits_at_least_as_often_as_under_lru() -> None:
    chance = random.Random(7)
    weights = [1 / rank for rank in range(1, 5001)]
    trace = chance.choices([number(n) for n in range(5000)], weights, k=60_000)
    cache = Cache(500)
    lru: OrderedDict[bytes, None] = OrderedDict()
    hits = lru_hits = 0
    for key in trace:
        hits += cache.ask(key)
        lru_hits += key in lru
        lru[key] = None
        lru.move_to_end(key)
        if len(lru) > 500:
            lru.popitem(last=False)
    assert hits > lru_hits


def test_a_search_is_bounded_however_many_have_been_asked_for() -> None:
    queues = EvictionQueues(1000)
    for n in range(20 * STEPS_MAX):
        queues.add(number(n), 1)
        queues.asked[number(n)] = None
    assert queues.next_to_go(1000) == number(0)
    assert len(queues.main) == STEPS_MAX


def test_a_request_costs_the_same_in_a_full_store_of_any_size() -> None:
    """Hits and misses by turns: each step of a hand takes back what one hit has set."""

    def cost(places: int) -> float:
        cache = Cache(places)

        def work() -> None:
            for n in range(4 * places):
                cache.ask(number(n))
                cache.ask(number(n - n % 3))

        return instructions_of(work) / places

    assert cost(5000) < 1.1 * cost(100)


def test_ghosts_are_bounded_and_cost_nothing_before_the_first() -> None:
    assert len(Ghosts(0)) == GHOSTS_MIN
    assert len(Ghosts(16 << 20)) == 16_384
    assert len(Ghosts(1 << 40)) == GHOSTS_MAX
    ghosts = Ghosts(1 << 20)
    assert not ghosts.take(b"*/1")
    for n in range(100_000):
        ghosts.add(number(n))
    remembered = [n for n in range(100_000) if ghosts.take(number(n))]
    assert len(ghosts) // 2 < len(remembered) <= len(ghosts)
    assert min(remembered) > 80_000, "the last ones"
    assert not any(ghosts.take(number(n)) for n in remembered), "each counts once"
