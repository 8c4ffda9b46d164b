"""One simulation, from the first request to the last answer."""

from collections.abc import Callable
from random import Random

from benchmarks.simulation.application import Model
from benchmarks.simulation.crowd import CrowdedProxy
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.load import Load
from benchmarks.simulation.proxy import Controller, Proxy
from benchmarks.simulation.run import Run


def simulate(
    model: Model,
    load: Load,
    seed: int,
    make_breaker: Callable[[float, Run], Controller],
    drain_s: float = 20.0,
) -> Run:
    """Run one scenario to its end, and on until everything is answered."""
    engine, run = Engine(), Run(model=model)
    kind = Proxy if load.crowd is None else CrowdedProxy
    proxy = kind(engine, model, load, Random(seed), make_breaker, run)
    engine.run(load.phases[-1][0] + drain_s)
    run.leaked = proxy.leaked()
    return run
