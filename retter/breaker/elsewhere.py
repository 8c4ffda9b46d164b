"""The judge in another process, for a breaker that follows it.

With several worker processes, one of them judges: it learns from all answers and moves the circuit
through its states. The breakers of the others decide about requests by the judge's figures, and
tell it what happens. `retter.judgement` has the whole.
"""

from retter.breaker.permit import Permit
from retter.breaker.states import Signal, State


class Elsewhere:
    """Takes what only the judge may act on."""

    def fire(self, now: float, signal: Signal) -> None:
        """Pass on a reason for a change of state."""
        raise NotImplementedError

    def slow(self, now: float, permit: Permit) -> None:
        """Pass on that a GET outlived its patience."""
        raise NotImplementedError

    def probed(self, now: float, permit: Permit) -> None:
        """Pass on that a probe is sent."""
        raise NotImplementedError

    def moved(self, state: State) -> None:
        """Pass on that an operator's order has changed the state here, as it does at the judge."""
        raise NotImplementedError
