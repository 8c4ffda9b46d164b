"""Several boxes before one application: each has a breaker of its own, and none knows the others.

They divide `--max-in-flight` and `--limit-start` among them (retter/proxy/sharing.py).
"""

from typing import TYPE_CHECKING

from benchmarks.simulation.workers import Workers
from retter.breaker import BreakerSettings, CircuitBreaker, Transition
from retter.breaker.circuit import Circuit
from retter.proxy.sharing import part_of

if TYPE_CHECKING:
    from benchmarks.simulation.run import Run


class Boxes(Workers):
    """Some breakers that share nothing, as one."""

    def __init__(self, now: float, run: "Run", boxes: int, settings: BreakerSettings) -> None:
        self._settings = part_of(settings, boxes)
        super().__init__(now, run, boxes, by_client=True)

    def _make(self, now: float, index: int) -> CircuitBreaker:
        def note(transition: Transition) -> None:
            said = (transition.at, transition.after.value, transition.cause.value)
            self._run.transitions.append(said)

        return CircuitBreaker(self._settings, now, note, b"box %d" % index)

    @property
    def judge(self) -> Circuit:
        """The circuit of the first box."""
        return self.breakers[0].circuit
