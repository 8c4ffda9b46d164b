"""The workers as the supervisor sees them, with the clock moved by hand."""

from math import inf

from retter.process.backoff import DELAYS_S, STEADY_S, Backoff
from retter.process.fleet import (
    DEATHS_AT_START_MAX,
    DRAIN_MARGIN_S,
    QUEUE_S,
    RELOAD_S,
    SILENT_S,
    START_S,
    Do,
    Fleet,
    Step,
    WorkerPhase,
)

ALIVE = [inf] * 4


def running(workers: int, now: float = 0.0) -> Fleet:
    """Return a fleet whose workers all serve."""
    fleet = Fleet(workers)
    for step in fleet.tick(now, ALIVE):
        fleet.started(step.index, now)
        fleet.ready(step.index, now)
    return fleet


def reload(fleet: Fleet) -> None:
    """Ask for a reload; all have closed the store."""
    for step in fleet.reload(0.0):
        fleet.closed(step.index)


def test_all_workers_are_started_at_once() -> None:
    fleet = Fleet(3)
    assert fleet.tick(0.0, ALIVE) == [Step(Do.START, 0), Step(Do.START, 1), Step(Do.START, 2)]
    for index in range(3):
        fleet.started(index, 0.0)
        assert fleet.serving == index and not fleet.has_served
        fleet.ready(index, 0.1)
    assert fleet.has_served and fleet.tick(0.2, ALIVE) == []


def test_a_worker_that_dies_is_replaced_at_once_and_later_with_growing_delays() -> None:
    fleet, now = running(2), 100.0
    for delay_s in (*DELAYS_S, DELAYS_S[-1]):
        assert fleet.exited(0, now) == now + delay_s
        if delay_s:
            away = [Step(Do.STOP_LISTENING, 0)] if delay_s >= QUEUE_S else []
            assert fleet.tick(now + delay_s - 0.01, ALIVE) == away
        now += delay_s
        assert fleet.tick(now, ALIVE) == [Step(Do.START, 0)]
        fleet.started(0, now)
        fleet.ready(0, now)
    assert fleet.phase(1) is WorkerPhase.SERVING, "the other one goes on"


def dying(fleet: Fleet, index: int, now: float, deaths: int) -> float:
    """Let a worker end so often at once; return when it is to be started again."""
    for _ in range(deaths):
        start_at = fleet.exited(index, now)
        fleet.started(index, start_at)
        now = start_at
    return fleet.exited(index, now)


def test_others_take_the_clients_of_a_worker_that_does_not_come_back() -> None:
    """Once, and again if it dies again: when it starts, its sockets listen again."""
    fleet = running(3)
    start_at = dying(fleet, 1, 100.0, 2)
    now = start_at - QUEUE_S / 2
    assert fleet.tick(now, ALIVE) == [Step(Do.STOP_LISTENING, 1)]
    fleet.listens_no_more(1)
    assert fleet.tick(now, ALIVE) == []
    assert fleet.tick(start_at, ALIVE) == [Step(Do.START, 1)]
    fleet.started(1, start_at)
    assert fleet.tick(start_at + 1, ALIVE) == []
    fleet.exited(1, start_at + 1)
    assert fleet.tick(start_at + 1, ALIVE) == [Step(Do.STOP_LISTENING, 1)]


def test_others_take_the_clients_of_a_worker_that_starts_or_drains_for_long() -> None:
    fleet = running(3)
    fleet.started(0, fleet.exited(0, 10.0))
    fleet.drains(1, 10.0, drain_s=30.0)
    assert fleet.tick(10.0 + QUEUE_S / 2, ALIVE) == [], "these few may wait"
    assert fleet.tick(10.0 + QUEUE_S, ALIVE) == [Step(Do.STOP_LISTENING, 1)]
    fleet.listens_no_more(1)
    assert fleet.tick(10.0 + SILENT_S, ALIVE) == [Step(Do.STOP_LISTENING, 0)]


def test_clients_wait_if_no_worker_serves() -> None:
    fleet = running(1)
    assert fleet.tick(dying(fleet, 0, 100.0, 3) - QUEUE_S, ALIVE) == []
    fleet = running(2)
    fleet.stop(1.0, 30.0)
    assert fleet.tick(1.0 + QUEUE_S, ALIVE) == []


def test_the_delays_begin_again_for_a_worker_that_has_lived_for_long() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(1.0) for _ in range(3)] == list(DELAYS_S[:3])
    assert backoff.delay_s(STEADY_S) == DELAYS_S[0]
    assert backoff.delay_s(1.0) == DELAYS_S[1]


def test_a_silent_worker_is_killed_once() -> None:
    fleet = running(2, now=50.0)
    assert fleet.tick(50 + SILENT_S - 0.1, [0.0, 55.0]) == [], "none has been asked for so long"
    steps = fleet.tick(50 + SILENT_S, [0.0, 55.0])
    assert [(one.do, one.index) for one in steps] == [(Do.KILL, 0)] and "silent" in steps[0].why
    assert fleet.tick(50 + SILENT_S + 1, [0.0, 60.0]) == []
    fleet.exited(0, 62.0)
    assert fleet.tick(62.0, [0.0, 62.0]) == [Step(Do.START, 0)]


def test_a_pause_of_all_processes_is_no_silence() -> None:
    """As with `docker pause`: the supervisor may look before the workers show that they live."""
    fleet, woken = running(4, now=50.0), 50 + START_S + SILENT_S
    fleet.exited(1, 50.0)
    fleet.started(1, 50.0)
    fleet.drains(2, 51.0, 15.0)
    fleet.drains(3, 51.0, 15.0)
    fleet.woke(woken, woken - 51.0)
    beats = [51.0] * 4
    assert fleet.tick(woken, beats) == [Step(Do.STOP_LISTENING, index) for index in (1, 2, 3)]
    for index in (1, 2, 3):
        fleet.listens_no_more(index)
    assert fleet.tick(woken + SILENT_S - 0.1, beats) == []
    steps = fleet.tick(woken + SILENT_S, beats)
    assert [(one.do, one.index) for one in steps] == [(Do.KILL, 0)], "it does not live again"
    steps = fleet.tick(woken + 15.0 + DRAIN_MARGIN_S, beats)
    assert [(one.do, one.index) for one in steps] == [(Do.KILL, 2), (Do.KILL, 3)]


def test_a_worker_that_never_serves_is_killed() -> None:
    fleet = Fleet(1)
    fleet.started(0, 0.0)
    assert fleet.tick(START_S - 0.1, [0.0]) == []
    assert [one.do for one in fleet.tick(START_S, [0.0])] == [Do.KILL]


def test_deaths_at_the_start_end_the_whole() -> None:
    fleet, now = Fleet(2), 0.0
    fleet.started(1, now)
    fleet.ready(1, now)
    for _ in range(DEATHS_AT_START_MAX):
        assert fleet.tick(now, ALIVE) == [Step(Do.START, 0)]
        fleet.started(0, now)
        now = fleet.exited(0, now)
    assert [one.do for one in fleet.tick(now, ALIVE)] == [Do.GIVE_UP]


def test_deaths_while_it_serves_never_end_the_whole() -> None:
    fleet, now = running(1), 1.0
    for _ in range(3 * DEATHS_AT_START_MAX):
        now = fleet.exited(0, now)
        assert fleet.tick(now, ALIVE) == [Step(Do.START, 0)]
        fleet.started(0, now)


def test_workers_reload_one_after_the_other() -> None:
    fleet = running(3)
    assert fleet.reload(0.5) == [Step(Do.CLOSE_STORE, index) for index in range(3)]
    fleet.closed(0)
    fleet.closed(2)
    assert fleet.tick(0.9, ALIVE) == [], "one may still store by the old rules"
    fleet.closed(1)
    for index in range(3):
        assert fleet.tick(1.0, ALIVE) == [Step(Do.RELOAD, index)]
        assert fleet.tick(1.5, ALIVE) == [], "it has not answered"
        fleet.reloaded(index)
    assert fleet.tick(2.0, ALIVE) == [Step(Do.OPEN_STORE, index) for index in range(3)]
    assert fleet.tick(2.5, ALIVE) == []


def test_a_worker_that_does_not_close_the_store_keeps_the_others_waiting_for_a_while_only() -> None:
    fleet = running(2)
    fleet.reload(1.0)
    fleet.closed(1)
    assert fleet.tick(1.0 + RELOAD_S - 0.1, ALIVE) == []
    assert fleet.tick(1.0 + RELOAD_S, ALIVE) == [Step(Do.RELOAD, 0)]


def test_a_worker_that_does_not_reload_keeps_the_others_waiting_for_a_while_only() -> None:
    fleet = running(2)
    reload(fleet)
    assert fleet.tick(1.0, ALIVE) == [Step(Do.RELOAD, 0)]
    assert fleet.tick(1.0 + RELOAD_S - 0.1, ALIVE) == []
    assert fleet.tick(1.0 + RELOAD_S, ALIVE) == [Step(Do.RELOAD, 1)]


def test_a_worker_that_dies_while_it_reloads_starts_with_the_new_settings() -> None:
    fleet = running(2)
    reload(fleet)
    fleet.tick(1.0, ALIVE)
    fleet.exited(0, 1.1)
    assert fleet.tick(1.2, ALIVE) == [Step(Do.START, 0), Step(Do.RELOAD, 1)]


def test_a_stop_drains_those_that_run_and_starts_nobody() -> None:
    fleet = running(3)
    fleet.exited(2, 1.0)
    assert fleet.stop(1.0, 15.0) == [Step(Do.DRAIN, 0), Step(Do.DRAIN, 1)]
    assert fleet.tick(2.0, ALIVE) == [] and not fleet.ended
    fleet.exited(0, 3.0)
    assert fleet.tick(16.0 + DRAIN_MARGIN_S - 0.1, ALIVE) == []
    steps = fleet.tick(16.0 + DRAIN_MARGIN_S, ALIVE)
    assert [(one.do, one.index) for one in steps] == [(Do.KILL, 1)]
    fleet.exited(1, 22.0)
    assert fleet.ended and fleet.tick(23.0, ALIVE) == []


def test_a_worker_that_was_asked_to_end_is_replaced_at_once() -> None:
    fleet = running(1)
    fleet.drains(0, 1.0, 15.0)
    assert fleet.tick(16.0, [0.0]) == [], "it may take its time"
    assert fleet.exited(0, 16.0) == 16.0
    assert fleet.tick(16.0, ALIVE) == [Step(Do.START, 0)]


def test_a_worker_that_was_asked_to_end_and_does_not_is_killed_once() -> None:
    fleet, late = running(1), 16.0 + DRAIN_MARGIN_S
    fleet.drains(0, 1.0, 15.0)
    assert fleet.tick(late - 0.1, [0.0]) == []
    assert [(one.do, one.index) for one in fleet.tick(late, [0.0])] == [(Do.KILL, 0)]
    assert fleet.tick(late + 1.0, [0.0]) == []


def test_after_giving_up_a_worker_that_does_not_end_is_killed() -> None:
    fleet, now = Fleet(2), 0.0
    fleet.started(1, now)
    for _ in range(DEATHS_AT_START_MAX):
        fleet.started(0, now)
        now = fleet.exited(0, now)
    assert [one.do for one in fleet.tick(now, ALIVE)] == [Do.GIVE_UP]
    assert fleet.stop(now, 15.0) == [Step(Do.DRAIN, 1)]
    assert fleet.tick(now, ALIVE) == [], "once is enough"
    late = now + 15.0 + DRAIN_MARGIN_S
    assert [(one.do, one.index) for one in fleet.tick(late, ALIVE)] == [(Do.KILL, 1)]


def test_a_worker_that_was_told_before_the_latest_reload_is_told_again() -> None:
    fleet = running(2)
    reload(fleet)
    assert fleet.tick(1.0, ALIVE) == [Step(Do.RELOAD, 0)]
    for step in fleet.reload(1.5):  # the file has changed once more
        fleet.closed(step.index)
    fleet.reloaded(0)  # it may have read the file before that
    assert fleet.tick(2.0, ALIVE) == [Step(Do.RELOAD, 0)]
    fleet.reloaded(0)
    assert fleet.tick(2.5, ALIVE) == [Step(Do.RELOAD, 1)]
