"""The deadline wheel against a naive model: nothing early, nothing lost, nothing twice."""

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from retter.wheel import HORIZON_S, DeadlineWheel


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
