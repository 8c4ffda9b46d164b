"""Takeovers in the simulation: visitors get as much as without."""

from random import Random

import pytest

from benchmarks.simulation.application import Model
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.load import Load
from benchmarks.simulation.proxy import Proxy
from benchmarks.simulation.run import Run
from benchmarks.simulation.runner import CONTROLLERS
from benchmarks.simulation.takeover import Succession
from retter.breaker import CircuitBreaker
from tests.support.tracing import untraced

pytestmark = untraced

CALM_S, STRESS_S, EVERY_S = 4.0, 24.0, 3.0
CAPACITY = 160.0  # requests a second: 8 workers, 50 ms each


class Cold(Succession):
    """Hands nothing over."""

    def _hand_over(self, before: CircuitBreaker, after: CircuitBreaker, now: float) -> None:
        pass


def fresh_and_errors(kind: type[Proxy]) -> tuple[int, int]:
    """Return how many answers were fresh, and how many errors, at five times the capacity."""
    fresh = errors = 0
    for seed in (1, 2):
        engine, run = Engine(), Run(model=Model())
        until = CALM_S + STRESS_S
        load = Load(phases=((CALM_S, 0.5 * CAPACITY), (until, 5 * CAPACITY)), visitors=50)
        proxy = kind(engine, run.model, load, Random(seed), CONTROLLERS["retter"], run)
        if isinstance(proxy, Succession):
            proxy.take_over_each(EVERY_S, until)
        engine.run(until + 10.0)
        stressed = [one for one in run.answers if one.arrived_at >= CALM_S]
        fresh += sum([one.how == "fresh" for one in stressed])
        errors += sum([one.how == "error" for one in stressed])
        if isinstance(proxy, Succession):
            assert proxy.takeovers == 9
    return fresh, errors


@pytest.mark.release
def test_a_takeover_costs_no_fresh_answers_and_no_errors() -> None:
    """Nothing that was learnt is lost: what a takeover costs in reality is the start's CPU time."""
    fresh, errors = fresh_and_errors(Proxy)
    fresh_then, errors_then = fresh_and_errors(Succession)
    assert errors == errors_then == 0
    assert fresh_then >= 0.95 * fresh
    cold, errors_cold = fresh_and_errors(Cold)
    assert errors_cold > 100 or cold < 0.9 * fresh, "else it was no test"
