"""The deadline wheel against a naive model: nothing early, nothing lost, nothing twice."""

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from retter.proxy.deadline_wheel import HORIZON_S, LOOKS_PER_PASSED, DeadlineWheel
from retter.telemetry.build import is_compiled


class Item:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.bucket = -1


def test_an_item_is_due_once_its_deadline_has_passed() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(10.0)
    item = Item(12.5)
    wheel.watch(item, 10.0)
    assert list(wheel.due(12.4)) == []
    assert list(wheel.due(13.0)) == [item]
    assert item.bucket >= 0, "watched until forgotten"
    wheel.forget(item)
    assert list(wheel.due(100.0)) == []


def test_items_of_one_second_hold_one_number() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(0.0)
    items = [Item(5000 + n / 10) for n in range(9)]
    for item in items:
        wheel.watch(item, 0.0)
    assert {item.bucket for item in items} == {5001}
    # Compiled, a number is made whenever Python's code reads it, and none is held.
    assert len({id(vars(item)["bucket"]) for item in items}) == 1 or is_compiled()


def test_a_deadline_that_has_moved_on_is_not_due() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(0.0)
    item = Item(1.0)
    wheel.watch(item, 0.0)
    item.deadline = 5.0
    assert list(wheel.due(3.0)) == []
    assert list(wheel.due(6.0)) == [item]


def test_a_deadline_that_came_nearer_is_told() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(0.0)
    item = Item(50.0)
    wheel.watch(item, 0.0)
    item.deadline = 1.5
    wheel.watch(item, 0.0)
    wheel.watch(item, 0.0)
    assert list(wheel.due(2.0)) == [item]


def test_whoever_takes_an_item_may_forget_the_others() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(0.0)
    items = [Item(1.5), Item(1.5)]
    for item in items:
        wheel.watch(item, 0.0)
    taken = []
    for item in wheel.due(2.0):
        taken.append(item)
        for other in items:
            wheel.forget(other)
    assert len(taken) == 1
    assert list(wheel.due(9.0)) == []


def test_many_that_are_due_together_are_taken_a_few_at_a_time() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(0.0)
    items = {Item(1.5) for _ in range(100)}
    for item in items:
        wheel.watch(item, 0.0)
    taken: list[Item] = []
    while wheel.behind(2.0):
        few = list(wheel.due(2.0, 8))
        assert 0 < len(few) <= 8
        for item in few:
            wheel.forget(item)
        taken += few
    assert len(taken) == 100 and set(taken) == items
    assert not wheel.behind(2.9)


def test_looking_has_an_end_too() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(0.0)
    items = [Item(1.5) for _ in range(1000)]
    for item in items:
        wheel.watch(item, 0.0)
        item.deadline = 9.5
    calls = 0
    while wheel.behind(2.0):
        assert list(wheel.due(2.0, 8)) == []
        calls += 1
    assert 1000 / (8 * LOOKS_PER_PASSED) <= calls < 20
    assert len(list(wheel.due(10.0))) == 1000


def test_what_changes_while_its_second_is_looked_at() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel(0.0)
    items = [Item(1.5) for _ in range(10)]
    for item in items:
        wheel.watch(item, 0.0)
    first = list(wheel.due(2.0, 1))
    rest = [item for item in items if item not in first]
    wheel.forget(first[0])
    wheel.forget(rest[0])  # gone
    wheel.forget(rest[1])
    wheel.watch(rest[1], 2.0)  # gone and back: due with the next second
    rest[2].deadline = 5.0  # moved on
    wheel.watch(rest[3], 2.0)  # said again
    assert set(wheel.due(2.0)) == set(rest[3:])
    assert set(wheel.due(3.0)) == set(rest[1:2] + rest[3:])
    for item in rest:
        wheel.forget(item)
    assert not list(wheel.due(99.0))


class Wheel(RuleBasedStateMachine):
    """Deadlines change at will; whoever brings one nearer says so."""

    items = Bundle("items")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wheel: DeadlineWheel[Item] = DeadlineWheel(self.now)
        self.watched: list[Item] = []
        self.infinite_since: dict[Item, float] = {}

    @rule(target=items, wait=st.one_of(st.just(inf), st.floats(0, 20)))
    def watch_new(self, wait: float) -> Item:
        item = Item(self.now + wait)
        self.wheel.watch(item, self.now)
        self.watched.append(item)
        return item

    @rule(item=items, wait=st.one_of(st.just(inf), st.floats(0, 20)))
    def change(self, item: Item, wait: float) -> None:
        item.deadline = self.now + wait
        if item in self.watched:
            self.wheel.watch(item, self.now)

    @rule(item=items)
    def forget(self, item: Item) -> None:
        self.wheel.forget(item)
        if item in self.watched:
            self.watched.remove(item)

    @rule(target=items, seconds=st.floats(0.01, 8))
    def let_time_pass(self, seconds: float) -> object:
        before, self.now = self.now, self.now + seconds
        due = list(self.wheel.due(self.now))
        assert len(due) == len(set(due)) or seconds > 1, "once in a second at the most"
        for item in due:
            assert item in self.watched
            assert item.deadline <= self.now, "never early"
        for item in self.watched:
            if item.deadline <= int(self.now) - 1 and item.deadline >= before - 1:
                assert item in due, "never later than its second"
        for item in set(due):
            self.forget(item)
        return multiple()

    @invariant()
    def what_is_watched_is_filed_where_it_will_be_found(self) -> None:
        for item in self.watched:
            in_time = item.deadline if item.deadline < inf else self.now + HORIZON_S
            assert self.now - 1 < item.bucket <= max(int(in_time) + 1, int(self.now) + 1)


TestWheel = Wheel.TestCase
TestWheel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
