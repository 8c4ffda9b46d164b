"""The parts that learn: baselines, the cold start, dips, windows."""

import pytest

from retter.base.errors import Outcome
from retter.breaker import (
    BreakerSettings,
    State,
    constants,
)
from retter.breaker.baseline import ApplicationBaseline, Baseline, Dips
from retter.breaker.limit import WorkRateLimit
from tests.breaker.situations import filled, forwarded, serve
from tests.support.breaker_driver import TICK_S, Driver

# --- the parts ---


def test_a_baseline_clips_freaks() -> None:
    """After ten samples one counts as ten means at most."""
    baseline = Baseline()
    for _ in range(11):
        baseline.add(1.0, 0.01)
    baseline.add(1000.0, 0.01)
    assert baseline.mean_s == pytest.approx(1.0 + 9.0 / 12)


def test_the_cold_mean_counts_those_that_still_run() -> None:
    """Five short ones answered, five long ones not: the mean is far above the short."""
    baseline = ApplicationBaseline(0.0)
    cold = baseline.cold
    assert cold is not None
    for _ in range(10):
        cold.enter(0.0)
    baseline.cold_leave(1.0, completed=False)
    assert baseline.mean_s == constants.BASELINE_START_S
    for _ in range(4):
        baseline.cold_leave(1.0, completed=True)
    assert baseline.mean_s == pytest.approx(10 / 4)
    assert baseline.samples == 4


def test_the_cold_start_lasts_longer_if_many_are_in_flight() -> None:
    """Their time is counted, their answers are not: with 32 in flight 30 answers are too few."""
    baseline = ApplicationBaseline(0.0)
    cold = baseline.cold
    assert cold is not None
    for number in range(32):
        cold.enter(number / 32)
    ended = 0
    while baseline.cold is not None:
        now = 1.0 + ended / 32
        ended += 1
        baseline.cold_leave(now, completed=True)
        cold.enter(now)
    assert ended == 117, "30 for each 8 of the 31 in flight"
    assert baseline.mean_s == pytest.approx(1.0, rel=0.15)


def test_the_first_answers_are_judged_when_it_is_known_what_is_late() -> None:
    """Nobody knew it when they came. If they stayed in time, later ones would prove an edge."""
    driver = Driver()
    permits = [forwarded(driver) for _ in range(10)]  # ranks 1 to 10

    def ended() -> list[tuple[float, float]]:
        rows = [driver.breaker.circuit.table.by_rank[rank] for rank in (1, 2, 3, 4, 10)]
        return [(row.in_time, row.late) for row in rows]

    for aborted in permits[4:9]:
        driver.finish(aborted, Outcome.NEUTRAL)
    driver.now = 0.05
    for short in (permits[0], permits[1], permits[3]):
        driver.finish(short)
    driver.now = 0.4
    driver.finish(permits[2])
    assert ended() == [(1, 0), (1, 0), (1, 0), (1, 0), (0, 0)], "too few to judge by"
    driver.finish(permits[9])  # 0.19 s on the average: 0.4 s are late
    assert ended() == [(1, 0), (1, 0), (0, 1), (1, 0), (1, 0)], (
        "with ten in flight it may have waited"
    )


def test_a_wide_application_ends_its_cold_start() -> None:
    """It always has more than a few in flight; those below the proven number do not wait in it."""
    driver = Driver(BreakerSettings(limit_start=20))
    baseline = driver.breaker.circuit.baseline
    for number in range(20):
        forwarded(driver)
        driver.now = number * 0.0125
    for _ in range(300):  # the oldest ends, after 0.25 s, and another comes
        driver.tick(0.0125)
        driver.finish(driver.in_flight[0])
        forwarded(driver)
    assert baseline.cold is None
    assert baseline.mean_s == pytest.approx(0.25, rel=0.15)
    assert not driver.transitions


def test_what_began_cold_may_end_warm() -> None:
    """The mean then follows the samples alone."""
    driver = Driver()
    early = forwarded(driver)
    serve(driver, 2.0)
    before = driver.breaker.snapshot(driver.now).baseline_s
    driver.finish(early, Outcome.NEUTRAL)
    assert driver.breaker.snapshot(driver.now).baseline_s == before
    serve(driver, 30.0, took_s=0.1)
    assert driver.breaker.snapshot(driver.now).baseline_s == pytest.approx(0.1, rel=0.1)


def test_a_dip_ends_by_time_or_by_samples() -> None:
    """And comes back."""
    dips = Dips()
    assert not dips.due(100.0, 0.05)
    dips.start_waiting(0.0)
    assert not dips.due(0.9, 0.05)
    assert dips.due(1.0, 0.05)
    assert dips.active
    assert not dips.due(1.1, 0.05)
    assert dips.due(1.3, 0.05)
    assert not dips.active
    assert dips.due(1.3 + constants.DIP_EVERY_MIN_S, 0.05)
    ended = [dips.sample(4.0, 0.05) for _ in range(constants.DIP_SAMPLES)]
    assert ended == [False] * (constants.DIP_SAMPLES - 1) + [True]
    assert dips.begun == 2
    dips.stop()
    assert not dips.due(1e9, 0.05)


def test_a_dip_makes_room_for_uncongested_answers() -> None:
    """Also when all that is in flight is congested for ever."""
    driver = filled()
    dipped = False
    for _ in range(100):
        driver.finish(driver.in_flight[0])
        driver.tick()
        for number in range(30):
            driver.admit(key=b"/%d" % number)
        dipped = dipped or driver.breaker.circuit.dips.active
        assert driver.breaker.circuit.state is State.LIMITING
    assert dipped
    assert driver.breaker.snapshot(driver.now).dips >= 1


def test_limiting_leaves_as_many_places_as_are_proven() -> None:
    """Whatever the work rate says, until answers at that rank are late or the application hangs."""
    driver = filled()
    circuit = driver.breaker.circuit
    row = circuit.table.by_rank[12]

    def places() -> float:
        circuit.table.read_proven()
        circuit.set_cap()
        return circuit.cap

    circuit.limit.set_limit(5.0)
    row.in_time = 20.0
    assert places() == 5, "during the cold start little is known of which answers are in time"
    circuit.baseline.cold = None
    assert places() == 12
    circuit.limit.discount()
    circuit.limit.discount()
    assert places() == 12 - (circuit.limit.in_flight - circuit.limit.load) == 11.25
    circuit.limit.old_others = 0
    circuit.limit.weigh()
    row.late = 20.0
    assert places() == 5
    row.late = 0.0
    circuit.pulse.stalled_at = driver.now + TICK_S
    assert places() == 5
    circuit.pulse.passed_at = driver.now + TICK_S
    assert places() == 12
    circuit.table.late_from = 9.0
    assert places() == 8, "answers are late from the edge on"
    circuit.limit.set_limit(14.0)
    assert places() == 14


def test_a_window_of_no_length_teaches_nothing() -> None:
    """Two ticks at one time."""
    limit = WorkRateLimit(0.0, 8)
    limit.close_window(0.0, crowded=False)
    assert limit.windows == 0
